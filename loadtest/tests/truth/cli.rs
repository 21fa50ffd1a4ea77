//! The program as it is called: what it prints where, and how it ends.

use std::path::Path;
use std::process::Output;

use tokio::process::Command;

async fn program(arguments: &[&str], more: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_jitney-load"));
    program.args(arguments).args(more).output().await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
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
