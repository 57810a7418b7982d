use super::{laid::CELL_LINES_MAX, *};

const NOW: Timestamp = Timestamp(1_796_108_720_000_000);

fn terminal(columns: u16) -> Screen {
    Screen {
        columns: Some(columns),
        has_colours: false,
    }
}

#[test]
fn in_a_pipe_columns_are_aligned_and_a_row_stays_a_line() {
    let mut table = Table::new(&["NAME", ">OPEN", "WHEN"]);
    table.row(["a".into(), "12".into(), "2026-12-01T07:00:00.5Z".into()]);
    table.row(["größer\nals".into(), "13000".into(), String::new()]);
    table.row(["日本".into(), "3".into(), "x".repeat(500)]);
    assert_eq!(
        table.text(),
        format!(
            "NAME         OPEN  WHEN\n\
             a              12  2026-12-01T07:00:00.5Z\n\
             größer als  13000  -\n\
             日本            3  {}\n",
            "x".repeat(500)
        )
    );
}

#[test]
fn one_long_cell_does_not_fill_the_others_of_its_column() {
    let mut table = Table::new(&["KEY", "TAIL"]);
    table.row(["k".repeat(5_000), "1".into()]);
    table.row(["k".into(), "2".into()]);
    let text = table.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[1], format!("{}  1", "k".repeat(5_000)));
    assert_eq!(lines[2], format!("k{}  2", " ".repeat(63)));
}

#[test]
fn rows_without_headings_stand_alone() {
    let mut table = Table::new(&["", ""]);
    assert_eq!(table.text(), "");
    assert_eq!(table.text_for(terminal(80), NOW), "");
    table.row(["a".into(), "b".into()]);
    assert_eq!(table.text(), "a  b\n");
    assert_eq!(table.text_for(terminal(80), NOW), "a  b\n");
}

fn records() -> Table {
    let mut table = Table::new(&[
        "PARTITION",
        ">OFFSET",
        "TIME",
        "KEY",
        "OPERATION",
        "TARGET",
        "END",
        "CAUSE",
    ]);
    for (offset, key) in [(7, "k1"), (13_000, "鍵鍵鍵鍵鍵鍵鍵鍵鍵鍵鍵 👩‍👩‍👧")]
    {
        table.row([
            "0".into(),
            offset.to_string(),
            "2026-12-01T07:00:00.123456Z".into(),
            key.into(),
            "POST".into(),
            "https://orders.example:8443/v1/orders/of/some/customer?id=12345678901234567890".into(),
            "no".into(),
            "status 503: the target answered 503 Service Unavailable".into(),
        ]);
    }
    table
}

#[test]
fn no_line_is_longer_than_the_terminal_and_nothing_of_a_cell_is_lost() {
    let table = records();
    for columns in 20..300 {
        let text = table.text_for(terminal(columns), NOW);
        for line in text.lines() {
            assert!(line.width() <= columns.into(), "{columns}: {line}\n{text}");
        }
        let letters = |text: &str| text.matches('鍵').count();
        assert_eq!(letters(&text), 11, "{columns}: {text}");
        assert!(text.contains("13000"), "{columns}: {text}");
    }
    let narrow = table.text_for(terminal(160), NOW);
    assert!(narrow.contains(" 07:00:00Z "), "{narrow}");
    assert!(!narrow.contains("2026-12-01T"), "{narrow}");
    let wide = table.text_for(terminal(299), NOW);
    assert!(wide.contains("2026-12-01T07:00:00Z (5m ago)"), "{wide}");
    assert_eq!(wide.lines().count(), 3, "{wide}");
}

#[test]
fn a_table_with_too_many_columns_is_a_block_for_each_row() {
    let text = records().text_for(terminal(40), NOW);
    assert!(text.starts_with("PARTITION  0\nOFFSET     7\n"), "{text}");
    assert!(
        text.contains("\n\nPARTITION  0\nOFFSET     13000\n"),
        "{text}"
    );
}

#[test]
fn columns_of_zeros_give_way_to_the_others() {
    let numbers = [
        "ACCEPTED",
        "DELIVERED",
        "FILTERED",
        "DISCARDED",
        "EXPIRED",
        "LOST",
        "PENDING",
    ];
    let headings = numbers.map(|name| format!(">{name}"));
    let headings: Vec<_> = ["STREAM"]
        .into_iter()
        .chain(headings.iter().map(|h| &**h))
        .collect();
    let mut table = Table::new(&headings);
    for stream in ["InternalserverErrorStream", "total"] {
        let mut row = vec![stream.to_owned()];
        row.extend(["4500", "4500", "0", "0", "0", "0", "0"].map(str::to_owned));
        table.row(row);
    }
    let wide = table.text_for(terminal(120), NOW);
    assert!(
        wide.starts_with("STREAM                     ACCEPTED  DELIVERED  FILTERED"),
        "{wide}"
    );
    assert_eq!(
        table.text_for(terminal(80), NOW),
        "STREAM                     ACCEPTED  DELIVERED  FILTERED  DISCARDED  EXPIRED\n\
         InternalserverErrorStream      4500       4500         0          0        0\n\
         total                          4500       4500         0          0        0\n"
    );
    let narrow = table.text_for(terminal(50), NOW);
    let headings = narrow.lines().next();
    assert_eq!(
        headings,
        Some("STREAM                     ACCEPTED  DELIVERED"),
        "{narrow}"
    );
    assert!(table.text().contains("PENDING"));
}

#[test]
fn a_name_is_not_cut_where_there_is_room_for_it() {
    let mut table = Table::new(&["STREAM", "CAUSE", "TARGET"]);
    table.row([
        "InternalserverErrorStream".into(),
        "status 500: the target answered 500 Internal Server Error, as it always does".into(),
        "https://orders.example:8443/v1/orders".into(),
    ]);
    let text = table.text_for(terminal(80), NOW);
    assert!(text.contains("InternalserverErrorStream  "), "{text}");
}

#[test]
fn a_cell_without_an_end_is_shortened_on_a_terminal() {
    let mut table = Table::new(&["NAME", "TEXT"]);
    table.row(["a".into(), "x".repeat(10_000)]);
    let text = table.text_for(terminal(80), NOW);
    assert_eq!(text.lines().count(), 1 + CELL_LINES_MAX, "{text}");
    assert!(text.trim_end().ends_with('…'), "{text}");
}

#[test]
fn a_key_that_looks_like_a_time_stays_as_it_is() {
    let mut table = Table::new(&["KEY", "TIME"]);
    table.row(["2026-12-01T07:00:00.25Z", "2026-12-01T07:00:00.25Z"].map(str::to_owned));
    let text = table.text_for(terminal(80), NOW);
    let row = "2026-12-01T07:00:00.25Z  2026-12-01T07:00:00Z (5m ago)";
    assert!(text.ends_with(&format!("{row}\n")), "{text}");
}

#[test]
fn headings_and_states_have_colours_that_take_no_room() {
    let mut table = Table::new(&["TARGET", "STATE"]);
    table.row(["open".into(), "open".into()]);
    table.row(["b".into(), "closed".into()]);
    let screen = Screen {
        columns: Some(80),
        has_colours: true,
    };
    let text = crate::cli::output::style::painted(&table.text_for(screen, NOW), true);
    assert_eq!(
        text,
        "\u{1b}[1mTARGET\u{1b}[0m  \u{1b}[1mSTATE\u{1b}[0m\n\
         open    \u{1b}[33mopen\u{1b}[0m\n\
         b       \u{1b}[32mclosed\u{1b}[0m\n"
    );
}

#[test]
fn the_place_of_a_record_stays_whatever_the_width() {
    let mut table = Table::new(&[">PARTITION", ">OFFSET", ">CALLS", "URL"]);
    table.row(["0", "0", "0", "http://127.0.0.1:9003/orders"].map(str::to_owned));
    let text = table.text_for(terminal(24), NOW);
    assert!(
        text.contains("PARTITION") && text.contains("OFFSET"),
        "{text}"
    );
    assert!(!text.contains("CALLS"), "{text}");
}

fn folded() -> Table {
    let headings = [
        ">PARTITION",
        ">OFFSET",
        "TIME",
        "KEY",
        "OPERATION",
        "TARGET",
        "STATE",
        "CAUSE",
        "MOVED TO",
    ];
    let second = ["OPERATION", "TARGET", "CAUSE", "MOVED TO"];
    let mut table = Table::new(&headings).folded(&second, &["KEY", "OPERATION", "TARGET", "CAUSE"]);
    for (offset, key) in [(7, "k1".to_owned()), (13_000, "鍵".repeat(200))] {
        table.row([
            "0".into(),
            offset.to_string(),
            "2026-12-01T07:00:00.123456Z".into(),
            key,
            "POST".into(),
            "https://orders.example:8443/v1/orders/of/some/customer?id=12345678901234567890".into(),
            "open".into(),
            "status 503: the target answered 503 Service Unavailable".into(),
            String::new(),
        ]);
    }
    table
}

#[test]
fn a_folded_row_has_two_lines_at_80_columns_and_says_what_was_cut() {
    let text = folded().text_for(terminal(80), NOW);
    let expected = [
        format!(
            "PARTITION  OFFSET  TIME                KEY{}  STATE",
            " ".repeat(31)
        ),
        format!("  OPERATION  TARGET{}  CAUSE", " ".repeat(27)),
        format!(
            "        0       7  07:00:00Z (5m ago)  k1{}  open",
            " ".repeat(32)
        ),
        "  POST       https://orders.example:8443/v1/o…  status 503: the target answered…".into(),
        format!(
            "        0   13000  07:00:00Z (5m ago)  {}…   open",
            "鍵".repeat(16)
        ),
        "  POST       https://orders.example:8443/v1/o…  status 503: the target answered…".into(),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_folded_row_is_one_line_where_there_is_room() {
    let text = folded().text_for(terminal(200), NOW);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("k1  ") && text.contains("鍵…"), "{text}");
    // A column that says nothing takes no room from the others.
    assert!(!text.contains("MOVED TO"), "{text}");
    let whole = folded().text_for(terminal(900), NOW);
    assert!(
        !whole.contains('…') && whole.contains("MOVED TO"),
        "{whole}"
    );
    assert!(whole.contains("2026-12-01T07:00:00Z (5m ago)"), "{whole}");
}

#[test]
fn a_folded_table_fits_every_terminal() {
    let table = folded();
    for columns in 20..300 {
        let text = table.text_for(terminal(columns), NOW);
        for line in text.lines() {
            assert!(line.width() <= columns.into(), "{columns}: {line}\n{text}");
        }
        assert!(
            text.contains("13000") && text.contains("503"),
            "{columns}: {text}"
        );
    }
    let mut empty = Table::new(&["NAME", "OCID"]).folded(&["OCID"], &["OCID"]);
    assert_eq!(empty.text_for(terminal(80), NOW), "NAME  OCID\n");
    empty.row(["a".into(), String::new()]);
    assert_eq!(empty.text_for(terminal(80), NOW), "NAME  OCID\na     -\n");
}

#[test]
fn in_a_pipe_a_folded_table_is_as_any_other() {
    let text = folded().text();
    assert!(text.starts_with("PARTITION  OFFSET  TIME"), "{text}");
    assert!(
        text.contains(&"鍵".repeat(200)) && !text.contains('…'),
        "{text}"
    );
    assert!(text.lines().nth(1).unwrap().ends_with("  -"), "{text}");
}
