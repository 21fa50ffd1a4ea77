//! `jitney check`: what a repository would serve, or everything that is wrong with it.

use std::sync::Arc;

use anyhow::bail;

use crate::config::{RawServer, write_model_policy};
use crate::model::{Batching, VersionId};
use crate::server::Machine;
use crate::serving::{Catalog, Loader, Repository};

/// Loads every version that would be served, and says how; exits with 1 if one would not.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    raw: RawServer,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = self.raw.resolve()?;
        super::log(&config.log)?;
        let repository = Repository::open(&config.repository)?;
        let machine = Machine::open(&config)?;
        let loader = machine.loader(&config, &Catalog::default());
        let names = repository.names()?;
        let wrong = names
            .iter()
            .filter(|name| !sound(name, &repository, &loader))
            .count();
        if wrong > 0 {
            bail!("{wrong} of {} models would not be served", names.len());
        }
        println!("{} models are sound", names.len());
        Ok(())
    }
}

/// Says how one model would be served, or what is wrong; whether nothing is.
fn sound(name: &str, repository: &Repository, loader: &Loader) -> bool {
    let folder = match repository.read(name) {
        Ok(folder) => folder,
        Err(error) => {
            println!("{name}: WRONG\n{error}");
            return false;
        }
    };
    let versions = folder.policy.versions.choose(&folder.versions());
    if versions.is_empty() {
        println!("{name}: WRONG\n{}", folder.nothing_to_serve());
        return false;
    }
    println!("{name}: resolved model.toml");
    for line in write_model_policy(&folder.policy).lines() {
        println!("  {line}");
    }
    let mut all = true;
    for version in versions {
        let id = VersionId {
            model: Arc::from(name),
            version,
        };
        match loader.inspect(&folder.artifact(id)) {
            Ok((signature, batching)) => {
                let batching = match batching {
                    Batching::Rows => {
                        format!(
                            "batches of up to {} rows",
                            folder.policy.batch.max_batch_size
                        )
                    }
                    Batching::Alone(reason) => format!("one request at a time: {reason}"),
                };
                println!(
                    "{name} version {version}: {}; {batching}",
                    super::serve::signature(&signature)
                );
            }
            Err(reason) => {
                println!("{name} version {version}: WRONG: {reason}");
                all = false;
            }
        }
    }
    all
}
