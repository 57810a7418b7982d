//! Every example of a page does what the page says.

use std::path::PathBuf;

use futures_util::{StreamExt as _, stream};

use super::{page, pages};

/// Pages that are run at the same time.
const AT_ONCE: usize = 3;

fn tools() -> Option<PathBuf> {
    std::env::var_os("SYNCGATE_TEST_CLIENTS").map(PathBuf::from)
}

/// `SYNCGATE_TEST_PAGE=retry` runs one page alone.
#[tokio::test]
async fn every_example_of_the_manual_does_what_its_page_says() {
    let only = std::env::var("SYNCGATE_TEST_PAGE").ok();
    let chosen = pages()
        .into_iter()
        .filter(|(name, _)| only.as_ref().is_none_or(|only| only == name));
    let runs = chosen.map(|(name, text)| async move {
        let ran = page::run(&text, tools()).await;
        ran.map_err(|wrong| format!("src/docs/{name}.md, {wrong}"))
    });
    let ran: Vec<_> = stream::iter(runs).buffer_unordered(AT_ONCE).collect().await;
    let wrong: Vec<String> = ran.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

async fn check(text: &str, expected: Result<usize, &str>) {
    let ran = page::run(text, None).await;
    match (&ran, expected) {
        (Ok(count), Ok(expected)) => assert_eq!(*count, expected, "{text}"),
        (Err(wrong), Err(expected)) => assert!(wrong.contains(expected), "{wrong}"),
        _ => panic!("{ran:?} for {text}"),
    }
}

const SYNC: &str = "```sh\ncurl -s http://127.0.0.1:9002/stream/sync -d '{\"streamMessage\": {\n  \
    \"targetRestApi\": \"http://127.0.0.1:9003/down\", \"targetRestApiOperation\": \"PUT\"}}'\n```\n";

#[tokio::test]
async fn a_page_is_run_from_top_to_bottom() {
    let page = format!(
        "{SYNC}it says\n```json\n{{\"status\": \"success\", \"offset\": 0, \"messageId\": \"…\", \"…\": \"…\"}}\n```\n\
         ```sh\nexport STREAM=ServerUnavailableStream\necho a > file\n```\n\
         ```sh\ncat file; syncgate records $STREAM | head -n 2\n```\n\
         ```text\na\nPARTITION … http://127.0.0.1:9003 …\n```\n\
         ```sh exit=1 target=/down=200\nsyncgate status\n```\n\
         ```console\n$ syncgate retry ServerUnavailableStream \\\n    --loop\nPARTITION  REQUESTS  DELIVERED …\n0 … 1 … yes\n$ echo b\nb\n```\n\
         ```toml\n[server]\ngrace_ms = 5\n```\n\
         ```nginx no-run=\"another program\"\nx\n```\n\
         ```toml gateway\n[sync]\nanswer = \"text\"\n```\n\
         ```sh gateway\nexport SYNCGATE_ADMIN_USER=ada\nexport SYNCGATE_ADMIN_PASSWORD='correct horse battery'\n```\n\
         {SYNC}```text\nsuccess\n```\n\
         ```sh\nsyncgate streams ls\n```\n```text\nDataSyncStream … 1\n```\n"
    );
    check(&page, Ok(10)).await;
}

#[tokio::test]
async fn an_example_that_does_something_else_is_found() {
    let wrong =
        format!("{SYNC}```json\n{{\"status\": \"success\", \"offset\": 7, \"…\": \"…\"}}\n```\n");
    check(&wrong, Err("line 1: /offset: 0, the text has 7")).await;
    let silent = format!("{SYNC}```json\n{{\"status\": \"success\", \"offset\": 0}}\n```\n");
    check(&silent, Err("the page leaves out [\"messageId\",")).await;
    check(
        "\n```sh\nsyncgate streams ls\n```\n```text\nNoStream\n```\n",
        Err("line 2: \"NoStream\" is not"),
    )
    .await;
    check("```sh\nfalse\n```\n", Err("line 1: exit code Some(1)")).await;
    check(
        "```sh exit=1\ntrue\n```\n",
        Err("line 1: exit code Some(0)"),
    )
    .await;
    check(
        "```sh\nsyncgate docs settigns\n```\n",
        Err("did you mean \"settings\"?"),
    )
    .await;
    check(
        "```console\n$ echo a\nb\n```\n",
        Err("$ echo a: \"b\" is not"),
    )
    .await;
    check("```toml\n[sever]\n```\n", Err("line 1: exit code Some(2)")).await;
    check("```json\n{}\n```\n", Err("this answers no command")).await;
    check("```caddy\nx\n```\n", Err("give a reason")).await;
    check("```\nx\n```\n", Err("give a reason")).await;
}
