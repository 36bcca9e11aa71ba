//! Several kinds of sandbox, used as one: whatever is asked for a function goes to the sandbox that the function names.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Availability, Instance, InstanceSpec, Isolation, IsolationError, Layer, LogSink, Sandbox, SandboxKind,
    StartError, UnsupportedError,
};

/// The sandboxes of this machine, under one roof.
pub struct Roof {
    default: Arc<dyn Sandbox>,
    /// Those that there are, the default one among them; of others, why there is none.
    sandboxes: BTreeMap<SandboxKind, Result<Arc<dyn Sandbox>, String>>,
}

impl Roof {
    /// A roof with the sandbox of functions that name none.
    #[must_use]
    pub fn new(default: Arc<dyn Sandbox>) -> Self {
        let sandboxes = BTreeMap::from([(default.kind(), Ok(default.clone()))]);
        Self { default, sandboxes }
    }

    /// With the sandbox of this kind, or the reason why it cannot be had: one line that says what to do.
    #[must_use]
    pub fn with(mut self, kind: SandboxKind, sandbox: Result<Arc<dyn Sandbox>, String>) -> Self {
        self.sandboxes.insert(kind, sandbox);
        self
    }

    fn sandbox(&self, kind: SandboxKind) -> Result<&Arc<dyn Sandbox>, UnsupportedError> {
        match self.sandboxes.get(&kind) {
            Some(Ok(sandbox)) => Ok(sandbox),
            Some(Err(reason)) => Err(unavailable(kind, reason)),
            None => Err(unavailable(kind, NOT_BUILT_IN)),
        }
    }
}

/// Why there is no sandbox of a kind that nobody has named.
const NOT_BUILT_IN: &str = "this version of spore does not have it yet";

fn unavailable(kind: SandboxKind, reason: &str) -> UnsupportedError {
    UnsupportedError(format!("the sandbox `{kind}` cannot be had here: {reason}"))
}

#[async_trait]
impl Sandbox for Roof {
    fn kind(&self) -> SandboxKind {
        self.default.kind()
    }

    fn kinds(&self) -> Vec<Availability> {
        let missing = |kind| match self.sandboxes.get(&kind) {
            Some(Ok(_)) => None,
            Some(Err(reason)) => Some(reason.clone()),
            None => Some(NOT_BUILT_IN.to_owned()),
        };
        SandboxKind::ALL
            .map(|kind| Availability {
                kind,
                missing: missing(kind),
            })
            .to_vec()
    }

    fn isolation(&self, kind: SandboxKind, wanted: Option<Isolation>) -> Result<Isolation, IsolationError> {
        let sandbox = self.sandbox(kind).map_err(|error| IsolationError(error.0))?;
        sandbox.isolation(kind, wanted)
    }

    fn check(&self, spec: &InstanceSpec) -> Result<(), UnsupportedError> {
        self.sandbox(spec.sandbox)?.check(spec)
    }

    fn layers(&self) -> Vec<Layer> {
        self.default.layers()
    }

    /// Each hears of its own functions only.
    fn retain(&self, deployed: &[InstanceSpec]) {
        for (kind, sandbox) in &self.sandboxes {
            let Ok(sandbox) = sandbox else { continue };
            let own = deployed.iter().filter(|spec| spec.sandbox == *kind).cloned();
            sandbox.retain(&own.collect::<Vec<_>>());
        }
    }

    async fn start(
        &self,
        spec: InstanceSpec,
        log: Arc<dyn LogSink>,
    ) -> Result<Arc<dyn Instance>, StartError> {
        let sandbox = self
            .sandbox(spec.sandbox)
            .map_err(|error| StartError::BadProgram { reason: error.0 })?;
        sandbox.start(spec, log).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::{LogLine, Root};

    /// Starts nothing, and says so in its name.
    struct Named(SandboxKind, Mutex<Vec<String>>);

    #[async_trait]
    impl Sandbox for Named {
        fn kind(&self) -> SandboxKind {
            self.0
        }

        fn isolation(&self, _: SandboxKind, _: Option<Isolation>) -> Result<Isolation, IsolationError> {
            Ok(Isolation::Process)
        }

        fn retain(&self, deployed: &[InstanceSpec]) {
            let names = deployed.iter().map(|spec| spec.function.clone());
            *self.1.lock().unwrap() = names.collect();
        }

        async fn start(&self, _: InstanceSpec, _: Arc<dyn LogSink>) -> Result<Arc<dyn Instance>, StartError> {
            let reason = self.0.name().to_owned();
            Err(StartError::BadProgram { reason })
        }
    }

    struct NoLog;

    impl LogSink for NoLog {
        fn write(&self, _: LogLine) {}
    }

    fn spec(function: &str, sandbox: SandboxKind) -> InstanceSpec {
        InstanceSpec {
            function: function.to_owned(),
            instance: String::new(),
            sandbox,
            root: Root::Program("/function".into()),
            root_digest: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            working_directory: "/".to_owned(),
            user: crate::User::default(),
            secrets: Vec::new(),
            rewrites_calls: true,
            is_cloned: false,
            is_reset: false,
            egress: Vec::new(),
            port: 8080,
            serves_runtime_api: false,
            command: None,
            unikernel: None,
            memory_bytes: 1 << 27,
            isolation: None,
            processor_millis: 1000,
            ready_timeout: Duration::from_secs(1),
        }
    }

    #[tokio::test]
    async fn each_function_reaches_the_sandbox_of_its_kind() {
        let named = |kind| Arc::new(Named(kind, Mutex::default()));
        let (unikernel, runc) = (named(SandboxKind::Unikernel), named(SandboxKind::Runc));
        let roof = Roof::new(unikernel.clone())
            .with(SandboxKind::Runc, Ok(runc.clone()))
            .with(SandboxKind::Crun, Err("install it".to_owned()));
        roof.retain(&[spec("a", SandboxKind::Unikernel), spec("b", SandboxKind::Runc)]);
        assert_eq!(*unikernel.1.lock().unwrap(), ["a"]);
        assert_eq!(*runc.1.lock().unwrap(), ["b"]);
        for (kind, says) in [
            (SandboxKind::Unikernel, "unikernel"),
            (SandboxKind::Runc, "runc"),
            (SandboxKind::Crun, "install it"),
            (SandboxKind::Microvm, NOT_BUILT_IN),
        ] {
            let Err(error) = roof.start(spec("a", kind), Arc::new(NoLog)).await else {
                panic!("nothing starts");
            };
            assert!(error.to_string().contains(says), "{error}");
            let is_there = matches!(kind, SandboxKind::Unikernel | SandboxKind::Runc);
            assert_eq!(roof.check(&spec("a", kind)).is_ok(), is_there);
            assert_eq!(roof.isolation(kind, None).is_ok(), is_there);
            let state = roof.kinds().into_iter().find(|state| state.kind == kind);
            assert_eq!(state.unwrap().missing.is_none(), is_there);
        }
    }
}
