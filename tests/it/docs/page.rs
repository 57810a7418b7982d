//! One page with its gateway and its target: its blocks are run from top to bottom.

use std::{
    collections::BTreeMap,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use reqwest::Method;
use tempfile::TempDir;

use super::{
    blocks::{self, Block},
    compare::compare,
    curl,
    shell::{self, Ended},
};
use crate::testkit::{Act, Gateway, Place, StubTarget, poll, syncgate};

/// As the pages write them.
const GATEWAY: [&str; 2] = ["127.0.0.1:9002", "localhost:9002"];
const TARGET: &str = "127.0.0.1:9003";

type Statuses = Arc<Mutex<BTreeMap<String, u16>>>;

struct Page {
    /// `work` is where programs run; beside it lies what they shall not see.
    dir: TempDir,
    target: StubTarget,
    /// From the end of a path to the status of the answer.
    statuses: Statuses,
    gateway: Option<Gateway>,
    config: String,
    exports: Vec<(String, String)>,
    tools: Option<PathBuf>,
}

/// Runs the examples of a page; returns how many there were.
///
/// # Errors
/// The first example that does not do what the page says, with its line.
pub(super) async fn run(text: &str, tools: Option<PathBuf>) -> Result<usize, String> {
    let mut page = Page::new(tools).await;
    let blocks = blocks::of_page(text)?;
    let (mut count, mut at) = (0, 0);
    while let Some(block) = blocks.get(at) {
        at += 1;
        let answer = blocks.get(at).filter(|next| is_answer(next));
        let ran = page.block(block, answer).await;
        count += usize::from(ran.map_err(|wrong| format!("line {}: {wrong}", block.line))?);
        let has_answer = block.word("no-run").is_none()
            && block.word("gateway").is_none()
            && matches!(&*block.language, "sh" | "bash" | "python" | "js");
        at += usize::from(has_answer && answer.is_some());
    }
    Ok(count)
}

fn is_answer(block: &Block) -> bool {
    matches!(&*block.language, "json" | "text") && block.word("no-run").is_none()
}

impl Page {
    async fn new(tools: Option<PathBuf>) -> Self {
        let statuses = Statuses::default();
        let rule = statuses.clone();
        let target = StubTarget::with(move |call| {
            let path = call.path.split('?').next().unwrap_or_default();
            let said = rule.lock().unwrap();
            let said = said.iter().find(|(end, _)| path.ends_with(&***end));
            Act::Bare(match said {
                Some((_, status)) => *status,
                None if path.ends_with("/down") => 503,
                None if path.ends_with("/refused") => 404,
                None => 200,
            })
        })
        .await;
        let dir = TempDir::new().unwrap();
        for folder in ["work", "bin"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let binary = PathBuf::from(syncgate().get_program());
        symlink(binary, dir.path().join("bin/syncgate")).unwrap();
        Self {
            dir,
            target,
            statuses,
            gateway: None,
            config: String::new(),
            exports: Vec::new(),
            tools,
        }
    }

    /// Runs one block; returns whether it was an example.
    async fn block(&mut self, block: &Block, answer: Option<&Block>) -> Result<bool, String> {
        if let Some(said) = block.word("target") {
            let (end, status) = said.rsplit_once('=').ok_or("target=PATH=STATUS")?;
            let status = status
                .parse()
                .map_err(|_| format!("{status} is no status"))?;
            self.statuses.lock().unwrap().insert(end.to_owned(), status);
        }
        if block.word("no-run").is_some() {
            return Ok(false);
        }
        let body = self.with_addresses(&block.body, block.word("gateway").is_none());
        match (&*block.language, block.word("gateway").is_some()) {
            ("toml", true) => {
                self.check_config(&body).await?;
                self.config = body;
                self.gateway = None;
            }
            ("sh" | "bash", true) => {
                self.exports = exports(&body)?;
                self.gateway = None;
            }
            ("toml", false) => self.check_config(&body).await?,
            ("sh" | "bash", false) => {
                let printed = self.script(&body, block.word("exit")).await?;
                if let Some(answer) = answer {
                    let expected = self.with_addresses(&answer.body, true);
                    compare(&expected, &printed)?;
                }
            }
            ("console", false) => self.console(&body, block.word("exit")).await?,
            (language @ ("python" | "js"), false) => self.program(language, &body, answer).await?,
            ("json" | "text", _) => {
                return Err(
                    "this answers no command; give a reason in the tag: no-run=\"…\"".into(),
                );
            }
            (language, _) => {
                return Err(format!(
                    "blocks of the language {language:?} are not run; give a reason in the tag: no-run=\"…\""
                ));
            }
        }
        Ok(true)
    }

    /// Puts the addresses of this run in the place of those that pages write.
    fn with_addresses(&mut self, text: &str, with_gateway: bool) -> String {
        let target = format!("127.0.0.1:{}", self.target.port());
        let mut text = text.replace(TARGET, &target);
        if with_gateway {
            let address = self.gateway().url.replace("http://", "");
            for written in GATEWAY {
                text = text.replace(written, &address);
            }
        }
        text
    }

    fn gateway(&mut self) -> &Gateway {
        let (config, exports) = (&self.config, &self.exports);
        self.gateway.get_or_insert_with(|| {
            let place = Place::with_config(config);
            let exports = exports.iter();
            exports
                .fold(place, |place, (name, value)| place.env(name, value))
                .start()
        })
    }

    fn exported(&self, name: &str) -> Option<&str> {
        let mut found = self.exports.iter().filter(|(other, _)| other == name);
        found.next().map(|(_, value)| &**value)
    }

    /// Waits until everything that was posted has been dispatched: a reader takes longer than that.
    async fn dispatched(&mut self) {
        self.gateway();
        let login = self.exported("SYNCGATE_ADMIN_USER").map(str::to_owned);
        let password = self.exported("SYNCGATE_ADMIN_PASSWORD").map(str::to_owned);
        let gateway = self.gateway();
        poll("DataSyncStream to have no open record", async || {
            let mut request = gateway.request(Method::GET, "/v1/streams/DataSyncStream");
            if let Some(user) = &login {
                request = request.basic_auth(user, password.as_ref());
            }
            let stream = gateway.send(request).await.body;
            // A configuration may have another source stream.
            let bounds = stream["bounds"].as_array().cloned().unwrap_or_default();
            bounds
                .iter()
                .all(|partition| partition["open"] == 0)
                .then_some(())
        })
        .await;
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn command(&mut self, program: &Path) -> Command {
        let gateway = self.gateway();
        let (url, data) = (gateway.url.clone(), gateway.place().data());
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SYNCGATE_") {
                command.env_remove(name);
            }
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = self.dir.path().join("bin");
        command
            .current_dir(self.work())
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("HOME", self.work())
            .env("NO_COLOR", "1")
            .env("SYNCGATE_URL", url)
            .env("SYNCGATE_DATA__DIR", data);
        for (ours, theirs) in [
            ("SYNCGATE_USER", "SYNCGATE_ADMIN_USER"),
            ("SYNCGATE_PASSWORD", "SYNCGATE_ADMIN_PASSWORD"),
        ] {
            if let Some(value) = self.exported(theirs) {
                command.env(ours, value);
            }
        }
        command
    }

    async fn script(&mut self, script: &str, exit: Option<&str>) -> Result<String, String> {
        self.dispatched().await;
        let printed = match is_one_curl(script, &self.gateway().url) {
            true => {
                let (status, body) = curl::run(self.gateway(), script).await;
                if status >= 500 && exit.is_none() {
                    return Err(format!("{status} {body}"));
                }
                body
            }
            false => {
                let state = self.dir.path().join("state");
                let before = "if [ -e \"$0\" ]; then . \"$0\"; fi\n\
                     trap 'export -p | grep -v \" SYNCGATE_URL=\\| SYNCGATE_DATA__DIR=\" > \"$0\"' EXIT\n";
                let mut command = self.command(Path::new("bash"));
                command
                    .args(["-eu", "-c", &format!("{before}{script}")])
                    .arg(state);
                let ended = shell::run(command, self.dir.path(), |_| false).await?;
                check_exit(&ended, exit)?;
                ended.printed
            }
        };
        self.dispatched().await;
        Ok(printed)
    }

    /// Lines `$ command`, each with its output below.
    async fn console(&mut self, body: &str, exit: Option<&str>) -> Result<(), String> {
        let mut steps: Vec<(String, Vec<&str>)> = Vec::new();
        let mut goes_on = false;
        for line in body.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (None, Some((command, _))) if goes_on => {
                    *command += "\n";
                    *command += line;
                    goes_on = line.ends_with('\\');
                }
                (Some(command), _) => {
                    goes_on = command.ends_with('\\');
                    steps.push((command.to_owned(), Vec::new()));
                }
                (None, Some((_, output))) => output.push(line),
                (None, None) => return Err(format!("{line:?} is before the first command")),
            }
        }
        if steps.is_empty() {
            return Err("no line begins with \"$ \"".into());
        }
        for (command, output) in steps {
            let printed = self.script(&command, exit).await?;
            let output = output.join("\n");
            if !output.trim().is_empty() {
                compare(&output, &printed).map_err(|wrong| format!("$ {command}: {wrong}"))?;
            }
        }
        Ok(())
    }

    /// A client in another language; ended once it has printed what the page shows.
    async fn program(
        &mut self,
        language: &str,
        body: &str,
        answer: Option<&Block>,
    ) -> Result<(), String> {
        let Some(tools) = self.tools.clone() else {
            return Ok(());
        };
        self.dispatched().await;
        let (program, file) = match language {
            "python" => ("venv/bin/python", "client.py"),
            _ => ("venv/bin/node", "client.mjs"),
        };
        std::fs::write(self.work().join(file), body).unwrap();
        let expected = answer.map(|answer| self.with_addresses(&answer.body, true));
        let mut command = self.command(&tools.join(program));
        command
            .arg(file)
            .env("NODE_PATH", tools.join("node_modules"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let is_there = |printed: &str| {
            let fits = |expected: &String| compare(expected, printed).is_ok();
            expected.as_ref().is_some_and(fits)
        };
        let ended = shell::run(command, self.dir.path(), is_there).await?;
        match &expected {
            Some(expected) => compare(expected, &ended.printed),
            None => check_exit(&ended, None),
        }
    }

    async fn check_config(&mut self, config: &str) -> Result<(), String> {
        let file = self.dir.path().join("page.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = syncgate();
        command.arg("check").arg("--config").arg(&file);
        command.envs(self.exports.iter().map(|(name, value)| (name, value)));
        let ended = shell::run(command, self.dir.path(), |_| false).await?;
        check_exit(&ended, None)
    }
}

/// Reads lines `export NAME=VALUE`.
fn exports(body: &str) -> Result<Vec<(String, String)>, String> {
    let lines = body.lines().filter(|line| line.starts_with("export "));
    let exports = lines.map(|line| {
        let words = curl::words(line);
        let said = words.get(1).and_then(|word| word.split_once('='));
        let (name, value) = said.ok_or(format!("{line:?} exports nothing"))?;
        Ok((name.to_owned(), value.to_owned()))
    });
    exports.collect()
}

/// Returns whether a script is one call of this gateway by `curl`, with nothing that a shell is needed for.
fn is_one_curl(script: &str, url: &str) -> bool {
    let (script, mut quote) = (script.trim().replace("\\\n", " "), None);
    let plain = script.chars().all(|c| match (quote, c) {
        (Some(open), c) if c == open => {
            quote = None;
            true
        }
        (Some('"'), '$') => false,
        (Some(_), _) => true,
        (None, '\'' | '"') => {
            quote = Some(c);
            true
        }
        (None, c) => !matches!(c, '|' | '&' | ';' | '<' | '>' | '$' | '\n' | '#' | '`'),
    });
    plain && script.starts_with("curl ") && script.contains(url)
}

fn check_exit(ended: &Ended, exit: Option<&str>) -> Result<(), String> {
    let code = ended.status.and_then(|status| status.code());
    match code.map(|code| code.to_string()).as_deref() == Some(exit.unwrap_or("0")) {
        true => Ok(()),
        false => Err(format!("exit code {code:?}: {}", ended.printed)),
    }
}
