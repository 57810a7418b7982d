//! The last lines of a page: disk, journal, ledger, readers.

use super::{Page, Report};
use crate::{cli::status::report::Reader, status::size};

impl Page<'_> {
    /// Returns the facts, after a blank line.
    pub(super) fn facts(&self, report: &Report) -> Vec<String> {
        let facts = [disk(report), journal(report), ledger(report)];
        let facts = facts.iter().map(|line| self.cut(line));
        let readers = self.readers(report);
        let blank = std::iter::once(String::new());
        blank.chain(facts).chain([readers]).collect()
    }

    /// Returns a line with as many readers as fit.
    fn readers(&self, report: &Report) -> String {
        let (dispatch, others): (Vec<_>, Vec<_>) = report
            .readers
            .iter()
            .partition(|reader| reader.kind == "dispatch");
        let behind: u64 = dispatch.iter().filter_map(|reader| reader.lag).sum();
        let mut line = format!("readers  dispatch {behind} behind");
        let mut left = others.len() + report.more_readers;
        for reader in others {
            let longer = format!("{line}; {}", read_by(reader));
            let room = self.columns.unwrap_or(usize::MAX);
            if longer.chars().count() + " and 100 more;".len() > room {
                break;
            }
            line = longer;
            left -= 1;
        }
        if left > 0 {
            self.was_cut.set(true);
            line = format!("{line}; and {left} more");
        }
        self.cut(&line)
    }
}

fn disk(report: &Report) -> String {
    let disk = &report.disk;
    let dir = disk.dir.as_deref();
    match (disk.free_bytes, disk.free_bytes_min) {
        (Some(free), Some(min)) => {
            let place = dir.map_or_else(String::new, |dir| format!(" in {dir}"));
            let (free, min) = (size(free), size(min));
            format!("disk     {free} free, {min} must stay free{place}")
        }
        _ => {
            let dir = dir.unwrap_or("the data directory");
            format!("disk     the disk of {dir} has not answered")
        }
    }
}

fn journal(report: &Report) -> String {
    let journal = &report.journal;
    let mut line = format!("journal  {}", journal.state);
    if let (Some(files), Some(bytes)) = (journal.files, journal.bytes) {
        line += &format!(
            ", {files} {} of {}",
            if files == 1 { "file" } else { "files" },
            size(bytes)
        );
    }
    match journal.unreadable_partitions {
        0 => {}
        1 => line += ", damaged for 1 partition",
        len => line += &format!(", damaged for {len} partitions"),
    }
    line
}

fn ledger(report: &Report) -> String {
    let ledger = &report.ledger;
    let losses = match ledger.accepted_losses {
        0 => String::new(),
        1 => ", losses accepted once".to_owned(),
        losses => format!(", losses accepted {losses} times"),
    };
    let open = match report.open_records.count {
        1 => "1 open record".to_owned(),
        len => format!("{len} open records"),
    };
    match ledger.balanced {
        true => format!("ledger   balanced, {open}{losses}"),
        false => format!("ledger   differs by {} in total{losses}", ledger.difference),
    }
}

fn read_by(reader: &Reader) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let lag = reader.lag.unwrap_or_default();
    let data_stream = text(&reader.data_stream);
    match reader.kind.as_str() {
        "subscribers" => {
            let len = reader.clients.unwrap_or_default();
            let clients = if len == 1 { "client" } else { "clients" };
            format!("{data_stream}: {len} {clients}")
        }
        "cursor" => format!("{data_stream}/{} {lag} behind", text(&reader.name)),
        _ => format!(
            "group {} of {} {lag} behind",
            text(&reader.name),
            text(&reader.stream)
        ),
    }
}
