//! `jitney convert`: a model's `config.pbtxt` as the `model.toml` that means the same.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::config::write_model_policy;
use crate::repository::ModelFolder;

/// Prints the model.toml that means what a model's config.pbtxt says, or everything wrong with it.
#[derive(Debug, clap::Args)]
pub(super) struct Convert {
    /// The model's folder, such as models/digits.
    #[arg(value_name = "PATH/MODEL")]
    model: PathBuf,

    /// Write it into the folder, where it goes before config.pbtxt from then on.
    #[arg(long)]
    write: bool,
}

impl Convert {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let folder = self.model.display();
        let path = self.model.canonicalize();
        let path = path.with_context(|| format!("{folder} is not a folder"))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let own = path.join("model.toml");
        if own.exists() {
            bail!(
                "{} is there already: it says how the model is served",
                own.display()
            );
        }
        let read = ModelFolder::read(&path, &name)?;
        if read.configuration.is_none() {
            bail!("{folder} has no config.pbtxt");
        }
        let text = write_model_policy(&read.policy);
        if !self.write {
            std::io::stdout().write_all(text.as_bytes())?;
            return Ok(());
        }
        // Not over one that has come meanwhile.
        let file = OpenOptions::new().write(true).create_new(true).open(&own);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("{} cannot be written", own.display()))?;
        super::say!("{} written", own.display());
        Ok(())
    }
}
