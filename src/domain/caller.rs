//! The caller of a use case, and which runs it may act on.

use super::{active_run::ActiveRun, run::Run};

/// The party that calls a use case.
///
/// ```
/// use janitor_runner::domain::caller::Caller;
///
/// let worker = Caller::Worker("w1".to_owned());
/// assert!(worker.may_act_for(Some("w1")));
/// assert!(!worker.may_act_for(Some("w2")));
/// assert!(Caller::Operator.may_act_for(Some("w2")));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A client on the operator's network. It may act on every run.
    Operator,
    /// The worker of this name, which has logged in. It may act only on the runs that it holds.
    Worker(String),
}

impl Caller {
    /// Returns whether this caller may act on a run that `holder` holds.
    ///
    /// A run without a worker's name belongs to no worker, so that only an operator may act on it.
    pub fn may_act_for(&self, holder: Option<&str>) -> bool {
        match self {
            Self::Operator => true,
            Self::Worker(name) => holder == Some(name.as_str()),
        }
    }

    /// Returns the name of the worker; none for an operator.
    pub fn into_worker(self) -> Option<String> {
        match self {
            Self::Operator => None,
            Self::Worker(name) => Some(name),
        }
    }
}

impl ActiveRun {
    /// Returns whether `caller` may act on this run: the worker that holds it, or an operator.
    pub fn may_be_changed_by(&self, caller: &Caller) -> bool {
        caller.may_act_for(self.claimant.worker.as_deref())
    }
}

impl Run {
    /// Returns whether `caller` may act on this run: the worker that held it, or an operator.
    pub fn may_be_read_by(&self, caller: &Caller) -> bool {
        caller.may_act_for(self.worker.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> Caller {
        Caller::Worker("w1".to_owned())
    }

    #[test]
    fn operator_may_act_for_every_holder() {
        for holder in [None, Some(""), Some("w1")] {
            assert!(Caller::Operator.may_act_for(holder), "{holder:?}");
        }
    }

    #[test]
    fn worker_may_act_only_for_itself() {
        assert!(worker().may_act_for(Some("w1")));
        for holder in [None, Some(""), Some("w2"), Some("W1")] {
            assert!(!worker().may_act_for(holder), "{holder:?}");
        }
    }

    #[test]
    fn only_a_worker_has_a_name() {
        assert_eq!(worker().into_worker().as_deref(), Some("w1"));
        assert_eq!(Caller::Operator.into_worker(), None);
    }
}
