//! One model brought up: its folder is read, and the versions that it is to serve take their places.

use std::io;
use std::sync::Arc;

use super::{Known, Reconciler, blocking, unreadable};
use crate::model::VersionId;
use crate::repository::{Fingerprint, ModelFolder, RepositoryError};
use crate::serving::catalog::ModelState;
use crate::serving::progress::Progress;
use crate::serving::supplied::Supplied;
use crate::status::{Code, Status};

impl Reconciler {
    /// Loads what the repository says of one model, after the models that it is made of. No lock is
    /// held while those are waited for.
    pub(super) async fn bring_up(&self, model: &str, supplied: Supplied) -> Result<(), Status> {
        let load = self.catalog.begin(model, &self.loader.clock);
        let progress = &load.progress;
        let needs = self.needs(model, progress).await;
        for part in needs.iter().flatten() {
            self.bring_up_part(part).await;
        }
        let needs = needs.map(drop);
        self.bring_up_itself(model, needs, supplied, progress).await
    }

    pub(super) async fn bring_up_itself(
        &self,
        model: &str,
        needs: Result<(), RepositoryError>,
        supplied: Supplied,
        progress: &Arc<Progress>,
    ) -> Result<(), Status> {
        let known = self.known(model);
        let mut known = known.lock().await;
        let name: Arc<str> = Arc::from(model);
        let start = self.loader.clock.now();
        let result = match supplied.is_empty() {
            true => self.reload(&name, &mut known, needs, progress).await,
            false => self.reload_as(&name, &mut known, supplied, progress).await,
        };
        if let Err(status) = &result {
            let took_ms = self.loader.took_ms(start);
            tracing::error!(model, reason = status.message, took_ms, "not loaded");
        } else {
            self.no_longer_missing(model);
        }
        result
    }

    async fn reload(
        &self,
        name: &Arc<str>,
        known: &mut Known,
        needs: Result<(), RepositoryError>,
        progress: &Arc<Progress>,
    ) -> Result<(), Status> {
        let folder = match self.folder(name, progress).await {
            Ok((read, fingerprint)) => {
                if read.as_ref().err().is_none_or(is_in_the_configuration) {
                    // A configuration that is wrong is as wrong in the next look.
                    known.seen = Some(fingerprint.clone());
                    known.tried = Some(fingerprint);
                }
                known.refused = None;
                read.and_then(|folder| {
                    self.parts.note(name, folder.policy.ensemble.as_ref());
                    needs.map(|()| folder)
                })
            }
            Err(error) => {
                known.refused = Some(error.to_string());
                Err(error)
            }
        };
        let folder = match folder {
            Ok(folder) => folder,
            Err(RepositoryError::NoModel { .. }) if known.loaded.is_empty() => {
                // A client can ask for any name; none of them may cost memory.
                self.known_models().remove(name);
                self.parts.forget(name);
                let reason = format!("there is no model {name:?} in the repository");
                if self.catalog.versions(name).is_ok() {
                    self.catalog.note_model(name, &reason);
                }
                return Err(Status::not_found(reason));
            }
            Err(error) => {
                self.catalog.note_model(name, &error.to_string());
                return Err(unreadable(&error));
            }
        };
        let result = self.install(name, known, folder, progress).await;
        if result.is_ok() {
            known.upload = None;
        }
        result
    }

    /// Loads a model as a client says, with its files if some came.
    async fn reload_as(
        &self,
        name: &Arc<str>,
        known: &mut Known,
        supplied: Supplied,
        progress: &Arc<Progress>,
    ) -> Result<(), Status> {
        let (repository, uploads) = (Arc::clone(&self.repository), Arc::clone(&self.uploads));
        let model = name.to_string();
        let read = blocking(move || {
            let Supplied { config, files } = supplied;
            let config = config.unwrap_or_default();
            if files.is_empty() {
                return Ok((repository.read_as(&model, &config)?, None));
            }
            let (folder, upload) = uploads.take(&model, &config, &files)?;
            Ok((folder, Some(upload)))
        })
        .await;
        let (folder, upload) = match read {
            Ok(read) => read,
            Err(error) => {
                self.forget_stranger(name, known);
                return Err(not_taken(&error));
            }
        };
        self.parts.note(name, folder.policy.ensemble.as_ref());
        let before = known.loaded.clone();
        let result = self.install(name, known, folder, progress).await;
        if result.is_ok() || known.loaded != before {
            known.upload = upload;
        } else {
            let came = upload.is_some();
            drop(upload);
            if came && known.loaded.is_empty() {
                self.catalog.forget(name);
            }
            self.forget_stranger(name, known);
        }
        result
    }

    /// A client can ask for any name; none that nothing is known of may cost memory.
    fn forget_stranger(&self, name: &Arc<str>, known: &Known) {
        if known.loaded.is_empty() && self.catalog.versions(name).is_err() {
            self.known_models().remove(name);
        }
    }

    /// The model's folder and what it looks like, brought here if it is elsewhere.
    async fn folder(
        &self,
        name: &str,
        progress: &Progress,
    ) -> Result<(Result<ModelFolder, RepositoryError>, Fingerprint), RepositoryError> {
        self.repository.bring(name, &progress.fetched).await?;
        let repository = Arc::clone(&self.repository);
        let model = name.to_owned();
        blocking(move || {
            let fingerprint = repository.fingerprint(&model)?;
            let read = repository.read(&model);
            if read.as_ref().is_err_and(is_in_the_configuration) {
                repository.doubt_configuration(&model);
            }
            Ok((read, fingerprint))
        })
        .await
    }

    async fn install(
        &self,
        name: &Arc<str>,
        known: &mut Known,
        folder: ModelFolder,
        progress: &Arc<Progress>,
    ) -> Result<(), Status> {
        let wanted = folder.policy.versions.choose(&folder.versions());
        if wanted.is_empty() {
            let reason = folder.nothing_to_serve();
            self.catalog.note_model(name, &reason);
            return Err(Status::new(Code::FailedPrecondition, reason));
        }
        let mut failures = Vec::new();
        for version in &wanted {
            let id = VersionId {
                model: Arc::clone(name),
                version: *version,
            };
            let fingerprint = folder.fingerprint(*version);
            // What an ensemble is made of may have changed, and nothing is loaded for it.
            let fixed = folder.policy.ensemble.is_none() && !self.catalog.is_taken_out(&id);
            if fixed && known.loaded.get(version) == Some(&fingerprint) {
                self.catalog.note(&id, ModelState::Ready, "");
                continue;
            }
            let artifact = folder.artifact(id);
            let key = self.loader.key(&artifact, &fingerprint);
            progress.of_version(*version, self.loader.past(&key));
            match self.load_version(artifact, &key, progress).await {
                Ok(()) => drop(known.loaded.insert(*version, fingerprint)),
                Err(reason) => failures.push(reason),
            }
        }
        self.catalog.note_model(name, "");
        let result = if failures.is_empty() {
            self.retire_all_but(name, &wanted);
            known.loaded.retain(|version, _| wanted.contains(version));
            Ok(())
        } else {
            Err(Status::new(Code::FailedPrecondition, failures.join("; ")))
        };
        self.catalog.forget_versions_but(name, &folder.versions());
        result
    }

    fn retire_all_but(&self, name: &Arc<str>, wanted: &[u64]) {
        for version in self.catalog.versions(name).unwrap_or_default() {
            if !wanted.contains(&version.id.version) {
                self.catalog.retire(&version.id, "superseded");
                tracing::info!(model = %version.id.model, version = version.id.version, "superseded");
            }
        }
    }
}

/// Whether it is what the configuration says, or that it is no text.
fn is_in_the_configuration(error: &RepositoryError) -> bool {
    match error {
        RepositoryError::Configuration(_) => true,
        RepositoryError::File { source, .. } => source.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// Why what a client brought is not loaded.
fn not_taken(error: &RepositoryError) -> Status {
    let code = match error {
        RepositoryError::Refused(_) | RepositoryError::Configuration(_) => Code::InvalidArgument,
        RepositoryError::Crowded { .. } => Code::ResourceExhausted,
        RepositoryError::NoModel { .. } => Code::NotFound,
        _ => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}
