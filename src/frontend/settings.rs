//! Calls about what is logged (logging extension).

use super::api::Api;
use crate::proto::log_settings_request::SettingValue as Given;
use crate::proto::log_settings_request::setting_value::ParameterChoice as GivenChoice;
use crate::proto::log_settings_response::SettingValue as Said;
use crate::proto::log_settings_response::setting_value::ParameterChoice as SaidChoice;
use crate::proto::*;
use crate::status::{Code, Status};
use crate::telemetry::logs::{Levels, Logs};

/// How moments are written in log lines.
const LOG_FORMAT: &str = "ISO8601";

impl Api {
    /// Changes what is logged, all of it or nothing, and says what is.
    pub(super) fn log_settings(
        &self,
        asked: LogSettingsRequest,
    ) -> Result<LogSettingsResponse, Status> {
        let logs = Logs::running().ok_or_else(|| {
            let message = "the log lines of this process are not Jitney's own";
            Status::new(Code::FailedPrecondition, message)
        })?;
        if !asked.settings.is_empty() {
            self.change_logs(logs, &asked)?;
        }
        Ok(said(logs.levels()))
    }

    fn change_logs(&self, logs: &Logs, asked: &LogSettingsRequest) -> Result<(), Status> {
        if !self.log_settings {
            let message = "clients may not change what is logged (log_settings is false)";
            return Err(Status::new(Code::FailedPrecondition, message));
        }
        let mut levels = logs.levels();
        for (name, given) in &asked.settings {
            hear(&mut levels, name, given)
                .map_err(|status| status.about(format_args!("log setting {name:?}")))?;
        }
        let changed = logs.change(levels);
        changed.map_err(|error| Status::internal(format!("log settings: {error}")))?;
        tracing::info!(?levels, "log settings changed");
        Ok(())
    }
}

fn hear(levels: &mut Levels, name: &str, given: &Given) -> Result<(), Status> {
    let Some(choice) = &given.parameter_choice else {
        return Ok(());
    };
    match (name, choice) {
        ("log_error", choice) => levels.error = truth(choice)?,
        ("log_warning", choice) => levels.warning = truth(choice)?,
        ("log_info", choice) => levels.info = truth(choice)?,
        ("log_verbose_level", GivenChoice::Uint32Param(level)) => levels.verbose = *level,
        ("log_verbose_level", _) => {
            return Err(Status::invalid("it takes a whole number of at least 0"));
        }
        ("log_format", GivenChoice::StringParam(format)) if format == LOG_FORMAT => {}
        ("log_format", _) => {
            return Err(Status::invalid(format!(
                "lines are written in {LOG_FORMAT:?}, and in no other format"
            )));
        }
        ("log_file", GivenChoice::StringParam(file)) if file.is_empty() => {}
        ("log_file", _) => {
            return Err(Status::invalid(
                "lines go to standard error, never to a file that a client names; leave it empty",
            ));
        }
        _ => {
            return Err(Status::invalid(
                "there is none of this name; there are log_error, log_file, log_format, log_info, \
                 log_verbose_level and log_warning",
            ));
        }
    }
    Ok(())
}

/// Clients send 1 and 0 for true and false.
fn truth(choice: &GivenChoice) -> Result<bool, Status> {
    match choice {
        GivenChoice::BoolParam(truth) => Ok(*truth),
        GivenChoice::Uint32Param(0) => Ok(false),
        GivenChoice::Uint32Param(1) => Ok(true),
        _ => Err(Status::invalid("it takes true or false")),
    }
}

fn said(levels: Levels) -> LogSettingsResponse {
    let text = |text: &str| SaidChoice::StringParam(text.to_owned());
    let settings = [
        ("log_error", SaidChoice::BoolParam(levels.error)),
        ("log_file", text("")),
        ("log_format", text(LOG_FORMAT)),
        ("log_info", SaidChoice::BoolParam(levels.info)),
        ("log_verbose_level", SaidChoice::Uint32Param(levels.verbose)),
        ("log_warning", SaidChoice::BoolParam(levels.warning)),
    ];
    let settings = settings.into_iter().map(|(name, choice)| {
        let parameter_choice = Some(choice);
        (name.to_owned(), Said { parameter_choice })
    });
    LogSettingsResponse {
        settings: settings.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Levels = Levels {
        error: true,
        warning: true,
        info: true,
        verbose: 0,
    };

    fn given(choice: GivenChoice) -> Given {
        Given {
            parameter_choice: Some(choice),
        }
    }

    #[test]
    fn log_settings_are_heard_or_refused() {
        let mut levels = ALL;
        hear(
            &mut levels,
            "log_info",
            &given(GivenChoice::BoolParam(false)),
        )
        .unwrap();
        hear(
            &mut levels,
            "log_error",
            &given(GivenChoice::Uint32Param(0)),
        )
        .unwrap();
        hear(
            &mut levels,
            "log_verbose_level",
            &given(GivenChoice::Uint32Param(2)),
        )
        .unwrap();
        hear(&mut levels, "log_warning", &Given::default()).unwrap();
        let expected = Levels {
            error: false,
            warning: true,
            info: false,
            verbose: 2,
        };
        assert_eq!(levels, expected);
        let text = |text: &str| given(GivenChoice::StringParam(text.to_owned()));
        assert!(hear(&mut levels, "log_file", &text("")).is_ok());
        assert!(hear(&mut levels, "log_format", &text("ISO8601")).is_ok());
        for (name, value) in [
            ("log_file", text("/tmp/x")),
            ("log_format", text("default")),
            ("log_info", text("true")),
            ("log_info", given(GivenChoice::Uint32Param(2))),
            ("log_verbose_level", given(GivenChoice::BoolParam(true))),
            ("nothing", text("")),
        ] {
            assert!(hear(&mut levels, name, &value).is_err(), "{name} {value:?}");
        }
        assert_eq!(levels, expected);
    }
}
