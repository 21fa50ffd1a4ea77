//! `jitney check`: what a repository would serve, or everything that is wrong with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::bail;
use tokio::runtime::{Builder, Runtime};

use crate::backend::Artifact;
use crate::clock::{Clock, MonotonicClock};
use crate::config::{RawServer, write_model_policy};
use crate::model::{Batching, EnsembleStep, VersionId};
use crate::repository::{Fetched, ModelFolder};
use crate::server::{Machine, repository};
use crate::serving::{Assembly, Catalog, Interface, Loader, Repository};

/// Loads every version that would be served, and says how; exits with 1 if one would not.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    raw: RawServer,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = self.raw.resolve()?;
        super::log(&config.log, config.log_json)?;
        let clock: Arc<dyn Clock> = Arc::new(MonotonicClock::start());
        let repository = repository(&config, &clock)?;
        let machine = Machine::open(&config)?;
        let loader = machine.loader(&config, &Catalog::default());
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            repository.look().await?;
            repository.first_look(config.watch_interval).await;
            anyhow::Ok(())
        })?;
        let names = repository.names()?;
        for name in &names {
            // Whoever is looked at next says what is wrong with it.
            let _ = runtime.block_on(repository.bring(name, &Fetched::default()));
        }
        let mut check = Checked {
            repository: &repository,
            runtime: &runtime,
            loader: &loader,
            interfaces: HashMap::new(),
        };
        let in_order = in_order(&names, &repository);
        let wrong = in_order.iter().filter(|name| !check.sound(name)).count();
        if wrong > 0 {
            bail!("{wrong} of {} models would not be served", names.len());
        }
        super::say!("{} models are sound", names.len());
        Ok(())
    }
}

/// Each after the models that it is made of.
fn in_order(names: &[String], repository: &Repository) -> Vec<String> {
    let mut in_order: Vec<String> = Vec::new();
    for name in names {
        let mut needs = repository.needs(name).unwrap_or_default();
        needs.push(name.clone());
        needs.retain(|need| names.contains(need) && !in_order.contains(need));
        in_order.extend(needs);
    }
    in_order
}

/// What was looked at so far: ensembles are made of it.
struct Checked<'a> {
    repository: &'a Repository,
    runtime: &'a Runtime,
    loader: &'a Loader,
    interfaces: HashMap<String, BTreeMap<u64, Interface>>,
}

impl Checked<'_> {
    /// Says how one model would be served, or what is wrong; whether nothing is.
    fn sound(&mut self, name: &str) -> bool {
        let brought = self
            .runtime
            .block_on(self.repository.bring(name, &Fetched::default()));
        let needs = brought.and_then(|()| self.repository.needs(name));
        let folder = match needs.and_then(|_| self.repository.read(name)) {
            Ok(folder) => folder,
            Err(error) => {
                super::say!("{name}: WRONG\n{error}");
                return false;
            }
        };
        let versions = folder.policy.versions.choose(&folder.versions());
        if versions.is_empty() {
            super::say!("{name}: WRONG\n{}", folder.nothing_to_serve());
            return false;
        }
        super::say!("{name}: resolved model.toml");
        for line in write_model_policy(&folder.policy).lines() {
            super::say!("  {line}");
        }
        let versions = versions.into_iter();
        let wrong = versions.filter(|version| !self.sound_version(name, *version, &folder));
        wrong.count() == 0
    }

    fn sound_version(&mut self, name: &str, version: u64, folder: &ModelFolder) -> bool {
        let id = VersionId {
            model: Arc::from(name),
            version,
        };
        let interface = match self.inspect(&folder.artifact(id)) {
            Ok(interface) => interface,
            Err(reason) => {
                super::say!("{name} version {version}: WRONG: {reason}");
                return false;
            }
        };
        let batching = match &interface.batching {
            Batching::Rows => format!("batches of up to {} rows", interface.max_batch_size),
            Batching::Alone(reason) => format!("one request at a time: {reason}"),
        };
        let signature = super::serve::signature(&interface.signature);
        let together = interface
            .together
            .map_or(String::new(), |how| format!(", {how}"));
        super::say!("{name} version {version}: {signature}; {batching}{together}");
        let known = self.interfaces.entry(name.to_owned()).or_default();
        known.insert(version, interface);
        true
    }

    fn inspect(&self, artifact: &Artifact) -> Result<Interface, String> {
        let Some(ensemble) = &artifact.policy.ensemble else {
            return self.loader.inspect(artifact);
        };
        let assembly = Assembly::new(artifact, ensemble, |step| self.interface(step))?;
        Ok(assembly.interface().clone())
    }

    /// What the model of a step looks like.
    fn interface(&self, step: &EnsembleStep) -> Result<Interface, String> {
        let versions = self.interfaces.get(&step.model);
        let found = versions.and_then(|versions| match step.version {
            Some(version) => versions.get(&version),
            None => versions.last_key_value().map(|(_, newest)| newest),
        });
        found.cloned().ok_or_else(|| match step.version {
            Some(version) => format!("there is no sound version {version} of the model"),
            None => "there is no sound model of this name".to_owned(),
        })
    }
}
