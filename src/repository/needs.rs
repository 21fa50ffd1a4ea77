//! Which models an ensemble is made of, and those in turn, as their folders say.

use super::{Repository, RepositoryError};

/// Ensembles that are made of ensembles, and so on, are no deeper than this.
pub const MOST_NESTED: usize = 8;

impl Repository {
    /// The models that this one is made of and those that they are made of, each after its own; none
    /// if it is no ensemble. A model that cannot be read needs nothing: loading it says why.
    pub fn needs(&self, model: &str) -> Result<Vec<String>, RepositoryError> {
        let mut found = Vec::new();
        self.add_needs(model, &mut Vec::new(), &mut found)?;
        found.retain(|name| name != model);
        Ok(found)
    }

    fn add_needs(
        &self,
        model: &str,
        path: &mut Vec<String>,
        found: &mut Vec<String>,
    ) -> Result<(), RepositoryError> {
        let circle = path.iter().any(|name| name == model);
        path.push(model.to_owned());
        if circle {
            let path = std::mem::take(path);
            return Err(RepositoryError::Circle(path.join(" needs ")));
        }
        if path.len() > MOST_NESTED + 1 {
            let path = std::mem::take(path);
            return Err(RepositoryError::Nested(path.join(" needs ")));
        }
        if !found.iter().any(|name| name == model) {
            let folder = self.read(model).ok();
            let ensemble = folder.and_then(|folder| folder.policy.ensemble);
            for part in ensemble.iter().flat_map(|ensemble| ensemble.models()) {
                self.add_needs(part, path, found)?;
            }
            found.push(model.to_owned());
        }
        path.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn repository(ensembles: &[(&str, &[&str])]) -> (tempfile::TempDir, Repository) {
        let root = tempfile::tempdir().unwrap();
        for (name, parts) in ensembles {
            let folder = root.path().join(name);
            fs::create_dir_all(folder.join("1")).unwrap();
            let steps: String = parts
                .iter()
                .map(|part| {
                    format!(
                        "[[ensemble.steps]]\nmodel = \"{part}\"\ninputs = {{}}\noutputs = {{}}\n"
                    )
                })
                .collect();
            let text = format!("[ensemble]\ninputs = []\noutputs = []\n{steps}");
            fs::write(folder.join("model.toml"), text).unwrap();
        }
        let repository = Repository::open(
            root.path(),
            crate::repository::FolderRules {
                follow_links: false,
                max_entries: 1000,
            },
        )
        .unwrap();
        (root, repository)
    }

    #[test]
    fn what_is_needed_comes_before_what_needs_it() {
        let (_root, repository) = repository(&[
            ("top", &["left", "right", "plain"]),
            ("left", &["bottom"]),
            ("right", &["left", "bottom"]),
        ]);
        let needs = repository.needs("top").unwrap();
        assert_eq!(needs, ["bottom", "left", "plain", "right"]);
        assert!(repository.needs("plain").unwrap().is_empty());
    }

    #[test]
    fn circles_and_towers_are_refused() {
        let (_root, repository) = repository(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]);
        let told = repository.needs("a").unwrap_err().to_string();
        assert!(told.contains("a needs b needs c needs b"), "{told}");
        let (_root, repository) = self::repository(&[("me", &["me"])]);
        let told = repository.needs("me").unwrap_err().to_string();
        assert!(told.contains("me needs me"), "{told}");
    }

    #[test]
    fn ensembles_nest_so_deep_and_no_deeper() {
        let names: Vec<String> = (0..=MOST_NESTED + 1)
            .map(|level| format!("e{level}"))
            .collect();
        let parts: Vec<[&str; 1]> = names[1..].iter().map(|name| [name.as_str()]).collect();
        let tower = names
            .iter()
            .zip(&parts)
            .map(|(name, part)| (name.as_str(), &part[..]));
        let (_root, repository) = repository(&tower.collect::<Vec<_>>());
        assert_eq!(repository.needs("e1").unwrap().len(), MOST_NESTED);
        let told = repository.needs("e0").unwrap_err().to_string();
        assert!(told.contains("e0 needs e1"), "{told}");
    }
}
