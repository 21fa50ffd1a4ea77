//! The parameters of a load (model repository extension).

use std::collections::HashMap;

use crate::proto::ModelRepositoryParameter;
use crate::proto::model_repository_parameter::ParameterChoice;
use crate::serving::Supplied;
use crate::status::Status;

/// What the parameters bring: `config`, and `file:PATH` for each file.
pub fn supplied(parameters: HashMap<String, ModelRepositoryParameter>) -> Result<Supplied, Status> {
    let mut supplied = Supplied::default();
    for (name, parameter) in parameters {
        match (name.strip_prefix("file:"), parameter.parameter_choice) {
            (Some(path), Some(ParameterChoice::BytesParam(content))) => {
                supplied.files.push((path.to_owned(), content));
            }
            (None, Some(ParameterChoice::StringParam(config))) if name == "config" => {
                supplied.config = Some(config);
            }
            _ => {
                let name: String = name.chars().take(64).collect();
                return Err(Status::invalid(format!(
                    "parameter {name:?}: allowed: \"config\" with a text, the model's configuration \
                     as JSON, and \"file:PATH\" with bytes, such as \"file:1/model.onnx\""
                )));
            }
        }
    }
    if !supplied.files.is_empty() && supplied.config.is_none() {
        return Err(Status::invalid(
            "files came without a configuration; add the parameter \"config\", the model's \
             configuration as JSON",
        ));
    }
    // The same request is the same load, in whatever order its parameters came.
    supplied.files.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(supplied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: Vec<(&str, ParameterChoice)>) -> Result<Supplied, String> {
        let parameters = parameters.into_iter().map(|(name, choice)| {
            let parameter_choice = Some(choice);
            (
                name.to_owned(),
                ModelRepositoryParameter { parameter_choice },
            )
        });
        supplied(parameters.collect()).map_err(|status| status.message)
    }

    #[test]
    fn files_come_with_a_configuration_and_nothing_else_comes() {
        let text = || ParameterChoice::StringParam("{}".to_owned());
        let bytes = || ParameterChoice::BytesParam(vec![1].into());
        assert!(read(vec![]).unwrap().is_empty());
        let found = read(vec![
            ("file:2/b", bytes()),
            ("config", text()),
            ("file:1/a", bytes()),
        ]);
        let found = found.unwrap();
        assert_eq!(found.config.as_deref(), Some("{}"));
        let paths: Vec<&str> = found.files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["1/a", "2/b"]);
        assert!(
            read(vec![("file:1/a", bytes())])
                .unwrap_err()
                .contains("without a configuration")
        );
        for wrong in [("config", bytes()), ("file:1/a", text()), ("other", text())] {
            assert!(
                read(vec![wrong])
                    .unwrap_err()
                    .contains("allowed: \"config\"")
            );
        }
    }
}
