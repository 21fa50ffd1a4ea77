//! The program as it is called: what it prints where, and how it ends.

use std::path::Path;
use std::process::Output;

use jitney_load::report::{Verdict, read_report};
use jitney_load::search::Found;
use tokio::process::Command;

use super::rest::{Doubler, start};

/// Runs a command with a scenario of this text against a server that doubles, or refuses everybody.
async fn called(command: &str, refuses: bool, scenario: &str, more: &[&str]) -> Output {
    let address = start(Doubler {
        factor: 2.0,
        refuses: refuses.then_some(1),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.toml");
    let text = format!("max_lag_ms = 60000\n[server]\nprotocol = \"rest\"\n{scenario}");
    std::fs::write(&file, text).unwrap();
    program(
        &[command, file.to_str().unwrap(), "--address", &address],
        more,
    )
    .await
}

async fn program(arguments: &[&str], more: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_jitney-load"));
    program.args(arguments).args(more).output().await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn answers_of_no_use_any_more_keep_no_bound() {
    // A microsecond after they are meant to be sent.
    let scenario = "[[requests]]\nmodel = \"a b\"\ndeadline_ms = 0.001\n\
                    [[steps]]\narrivals = \"constant\"\nrate = 100\nwarm_up_s = 0\n\
                    duration_s = 1\nslo = { percentile = 99, latency_ms = 60000 }";
    let run = called("run", false, scenario, &[]).await;
    let said = text(&run.stdout);
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(
        said.contains("MISSED: fewer than 99 % of requests were answered well"),
        "{said}"
    );
    assert!(
        said.contains("(of 99 answers, 99 of them late or wrong)"),
        "{said}"
    );
}

const SEARCHED: &str = "[[requests]]\nmodel = \"a b\"\n\
                        [[steps]]\narrivals = \"constant\"\nrate = 200\nwarm_up_s = 0\n\
                        duration_s = 0.5\nslo = { percentile = 50, latency_ms = 60000 }";

#[tokio::test]
async fn a_search_in_which_nothing_holds_says_so_and_reports() {
    let search = called("search", true, SEARCHED, &["--json", "-"]).await;
    assert_eq!(search.status.code(), Some(1), "{}", text(&search.stderr));
    // The report is all that the standard output has.
    let report = read_report(text(&search.stdout)).unwrap();
    assert_eq!(report.verdict(), Verdict::Missed);
    // 30 requests in half a second.
    assert_eq!(report.found, Some(Found::Nothing(60.0)));
    let rates: Vec<&str> = report.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(rates, ["200.0/s", "100.0/s", "60.0/s"]);
    let said = text(&search.stderr);
    assert!(
        said.contains("not even 60.0 requests a second hold"),
        "{said}"
    );
}

#[tokio::test]
async fn sentences_go_where_no_report_does() {
    let few = ["--from", "60"];
    let alone = called("search", true, SEARCHED, &few).await;
    assert!(text(&alone.stdout).starts_with("not even 60.0"));
    let page = called(
        "search",
        true,
        SEARCHED,
        &[&few[..], &["--html", "-"]].concat(),
    )
    .await;
    let (out, errors) = (text(&page.stdout), text(&page.stderr));
    assert!(
        out.starts_with("<!doctype html>") && out.ends_with("</html>\n"),
        "{out}"
    );
    assert!(errors.contains("not even 60.0"), "{errors}");
}

#[tokio::test]
async fn a_start_that_is_no_rate_is_refused() {
    for from in ["--from=0", "--from=-1", "--from=inf"] {
        let search = called("search", false, SEARCHED, &[from]).await;
        assert_eq!(search.status.code(), Some(3));
        assert!(text(&search.stderr).contains("is no rate"));
    }
}

#[tokio::test]
async fn a_server_beside_the_program_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.toml");
    let scenario = "[server]\ncommand = [\"{programs}/no-such-server\"]\n\
                    [[requests]]\nmodel = \"m\"\n\
                    [[steps]]\narrivals = \"constant\"\nrate = 1\nduration_s = 1";
    std::fs::write(&file, scenario).unwrap();
    let run = program(&["run", file.to_str().unwrap()], &[]).await;
    assert_eq!(run.status.code(), Some(3));
    let own = Path::new(env!("CARGO_BIN_EXE_jitney-load"));
    let beside = own.with_file_name("no-such-server");
    let said = text(&run.stderr);
    let wanted = format!("cannot start {}", beside.display());
    assert!(said.contains(&wanted), "{said}");
}
