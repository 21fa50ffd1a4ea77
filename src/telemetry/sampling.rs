//! Which requests are told in traces: decided when they begin, by what is chosen for their model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;

/// What is chosen, of a model or of all; none leaves it to what stands above.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Whether anything is traced.
    pub on: Option<bool>,
    /// Of how many requests one is told; 0 tells none but those that were slow or failed.
    pub rate: Option<f64>,
    /// How many are told from now on.
    pub left: Option<Left>,
}

/// How many requests are still to be told.
#[derive(Clone, Debug)]
pub struct Left(Arc<AtomicI64>);

impl Left {
    /// Without end.
    pub const ENDLESS: i64 = -1;

    /// So many, or [`Self::ENDLESS`].
    pub fn new(count: i64) -> Self {
        Self(Arc::new(AtomicI64::new(count)))
    }

    /// How many.
    pub fn count(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One less; false if there is none.
    fn take(&self) -> bool {
        let less = |left: i64| match left {
            0 => None,
            Self::ENDLESS => Some(left),
            left => Some(left - 1),
        };
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_update(set, fetch, less).is_ok()
    }
}

/// What goes for a model: every place filled in.
#[derive(Clone, Debug)]
pub struct Chosen<L = Left> {
    /// Whether anything is traced.
    pub on: bool,
    /// Of how many requests one is told; 0: of none.
    pub rate: f64,
    /// How many are still to be told.
    pub left: L,
}

impl Chosen<&Left> {
    /// Whether the next request is to be told.
    fn takes(&self) -> bool {
        self.rate >= 1.0 && fastrand::f64() * self.rate < 1.0 && self.left.take()
    }
}

#[derive(Clone, Debug, Default)]
struct Choices {
    all: Choice,
    models: BTreeMap<String, Choice>,
}

impl Choices {
    /// What goes for a model, by `default` where nothing is chosen.
    fn chosen<'a>(&'a self, model: &str, default: &'a Chosen) -> Chosen<&'a Left> {
        let (own, all) = (self.models.get(model), &self.all);
        let on = own.and_then(|own| own.on).or(all.on);
        let rate = own.and_then(|own| own.rate).or(all.rate);
        let left = own.and_then(|own| own.left.as_ref()).or(all.left.as_ref());
        Chosen {
            on: on.unwrap_or(default.on),
            rate: rate.unwrap_or(default.rate),
            left: left.unwrap_or(&default.left),
        }
    }
}

/// Which requests are told.
#[derive(Debug)]
pub struct Sampling {
    default: Chosen,
    choices: ArcSwap<Choices>,
}

impl Sampling {
    /// Tells this share of all requests, until something else is chosen.
    pub(super) fn new(ratio: f64) -> Self {
        let rate = if ratio > 0.0 { 1.0 / ratio } else { 0.0 };
        Self {
            default: Chosen {
                on: true,
                rate,
                left: Left::new(Left::ENDLESS),
            },
            choices: ArcSwap::default(),
        }
    }

    /// What goes for a model; without a name, for those of which nothing else is said.
    pub fn chosen(&self, model: &str) -> Chosen {
        let choices = self.choices.load();
        let Chosen { on, rate, left } = choices.chosen(model, &self.default);
        let left = left.clone();
        Chosen { on, rate, left }
    }

    /// Changes what goes for a model, or, without a name, for all. Of other models only those are
    /// kept of which `is_there`.
    pub fn change(
        &self,
        model: &str,
        is_there: impl Fn(&str) -> bool,
        change: impl Fn(&mut Choice),
    ) {
        self.choices.rcu(|choices| {
            let mut choices = Choices::clone(choices);
            choices.models.retain(|name, _| is_there(name));
            change(match model {
                "" => &mut choices.all,
                model => choices.models.entry(model.to_owned()).or_default(),
            });
            choices
        });
    }

    /// Whether a request of a model is told; none if nothing of the model is traced.
    pub(super) fn decides(&self, model: &str) -> Option<bool> {
        let choices = self.choices.load();
        let chosen = choices.chosen(model, &self.default);
        chosen.on.then(|| chosen.takes())
    }

    /// Whether anything of a model is traced.
    pub(super) fn is_on(&self, model: &str) -> bool {
        self.choices.load().chosen(model, &self.default).on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sampling: &Sampling, model: &str, requests: usize) -> usize {
        let requests = (0..requests).filter(|_| sampling.decides(model) == Some(true));
        requests.count()
    }

    #[test]
    fn a_share_is_told() {
        fastrand::seed(7);
        assert_eq!(told(&Sampling::new(1.0), "m", 100), 100);
        assert_eq!(told(&Sampling::new(0.0), "m", 100), 0);
        let tenth = told(&Sampling::new(0.1), "m", 10_000);
        // Five standard deviations.
        assert!(tenth.abs_diff(1000) < 150, "{tenth}");
    }

    #[test]
    fn a_models_own_choice_goes_before_that_for_all() {
        let sampling = Sampling::new(0.0);
        let all_there = |_: &str| true;
        sampling.change("", all_there, |all| all.rate = Some(1.0));
        sampling.change("m", all_there, |own| own.left = Some(Left::new(2)));
        assert_eq!(told(&sampling, "m", 5), 2);
        assert_eq!(told(&sampling, "other", 5), 5);
        sampling.change("m", all_there, |own| own.on = Some(false));
        assert_eq!(sampling.decides("m"), None);
        assert!(sampling.is_on("other"));
        // Taken back, it is as for all; and a model that is gone is forgotten.
        sampling.change("m", all_there, |own| *own = Choice::default());
        assert_eq!(told(&sampling, "m", 5), 5);
        sampling.change("m", all_there, |own| own.on = Some(false));
        sampling.change("", |name| name != "m", |_| {});
        assert!(sampling.is_on("m"));
    }
}
