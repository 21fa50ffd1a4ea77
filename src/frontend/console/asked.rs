//! What a query asks for.

use std::sync::Arc;

use url::form_urlencoded;

use super::View;
use crate::serving::Version;
use crate::status::Status;

/// Entries of a list, if nothing is said; what is kept bounds what may be asked for.
const LAST: usize = 64;

/// What a query asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    /// Of this model alone.
    pub(super) model: Option<String>,
    /// Of this version of it.
    pub(super) version: String,
    /// The most entries of a list.
    pub(super) last: usize,
    /// Whether the points of the last two minutes are to be told.
    pub(super) points: bool,
}

impl Asked {
    /// Reads a query that may have these keys.
    pub(super) fn read<B>(request: &http::Request<B>, known: &[&str]) -> Result<Self, Status> {
        let mut asked = Self {
            model: None,
            version: String::new(),
            last: LAST,
            points: true,
        };
        let query = request.uri().query().unwrap_or_default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&key.as_ref()) {
                return Err(unknown(&key, known));
            }
            match key.as_ref() {
                "model" => asked.model = Some(value.into_owned()),
                "version" => asked.version = value.into_owned(),
                "last" => asked.last = number(&value)?,
                _ => asked.points = truth(&value)?,
            }
        }
        Ok(asked)
    }

    /// Whether a model is among those that are asked for.
    pub(super) fn is_of(&self, model: &str) -> bool {
        self.model.as_ref().is_none_or(|asked| asked == model)
    }

    /// The versions that serve, of the model that is asked for; fails if there is none of the name.
    pub(super) fn versions(&self, view: &View) -> Result<Vec<Arc<Version>>, Status> {
        let catalog = view.api.engine.catalog();
        match &self.model {
            Some(model) => catalog.versions(model),
            None => Ok(catalog.serving()),
        }
    }
}

fn number(value: &str) -> Result<usize, Status> {
    value.parse().map_err(|_| {
        Status::invalid(format!(
            "last: found {}; a whole number is allowed",
            short(value)
        ))
    })
}

fn truth(value: &str) -> Result<bool, Status> {
    value.parse().map_err(|_| {
        Status::invalid(format!(
            "points: found {}; true or false is allowed",
            short(value)
        ))
    })
}

fn unknown(key: &str, known: &[&str]) -> Status {
    let known = known.join(", ");
    Status::invalid(format!(
        "there is no parameter {}; there are {known}",
        short(key)
    ))
}

/// What a client sent may be as long as a head of HTTP.
fn short(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Asked, String> {
        let request = http::Request::get(format!("/console/x?{query}")).body(());
        let asked = Asked::read(&request.unwrap(), &["model", "version", "last", "points"]);
        asked.map_err(|status| status.message)
    }

    #[test]
    fn a_query_says_what_is_told() {
        let all = Asked {
            model: None,
            version: String::new(),
            last: 64,
            points: true,
        };
        assert_eq!(read(""), Ok(all));
        let some = Asked {
            model: Some("a b".to_owned()),
            version: "7".to_owned(),
            last: 3,
            points: false,
        };
        assert_eq!(read("model=a%20b&version=7&last=3&points=false"), Ok(some));
        for (query, told) in [
            ("last=-1", r#"last: found "-1"; a whole number is allowed"#),
            (
                "points=maybe",
                r#"points: found "maybe"; true or false is allowed"#,
            ),
            (
                "modle=a",
                r#"there is no parameter "modle"; there are model, version, last, points"#,
            ),
        ] {
            assert_eq!(read(query).unwrap_err(), told);
        }
    }
}
