//! The deployed functions: in memory for invocations, in the store for the next start of the daemon.

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use spore_pool::Pool;
use spore_sandbox::{InstanceSpec, Isolation, LogLine, LogSink, LogSource, Root, Sandbox};
use spore_store::{Digest, FunctionDeployment, FunctionLog, FunctionRecord, Program, Store};

use crate::config::DaemonConfig;
use crate::connection::FunctionConnection;
use crate::errors::{ApiError, InvokeError, one_line};
use crate::images::Names;
use crate::settings::{DEFAULT_NAMESPACE, Settings};
use crate::statistics::FunctionStatistics;

/// A deployed function.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) pool: Pool<FunctionConnection>,
    pub(crate) log: Arc<FunctionLog>,
    /// Invocations since the daemon started.
    pub(crate) invocations: AtomicU64,
    version: RwLock<Version>,
}

/// What a replacement of the function changes.
struct Version {
    record: Arc<FunctionRecord>,
    /// How its instances are started.
    template: InstanceSpec,
    isolation: Isolation,
    timeout: Duration,
    statistics: Arc<FunctionStatistics>,
}

impl Function {
    /// How long an invocation may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.version
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .timeout
    }

    /// Those of the current version.
    pub(crate) fn statistics(&self) -> Arc<FunctionStatistics> {
        self.version
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .statistics
            .clone()
    }

    /// Whether its instances have a root file system, rather than the program alone.
    pub(crate) fn has_file_system(&self) -> bool {
        matches!(self.root(), Root::FileSystem(_))
    }

    fn root(&self) -> Root {
        self.version
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .template
            .root
            .clone()
    }

    fn template(&self) -> InstanceSpec {
        self.version
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .template
            .clone()
    }

    /// Writes a line of the platform's to its log.
    fn tell(&self, text: String) {
        self.log.write(LogLine {
            instance: String::new(),
            time: SystemTime::now(),
            source: LogSource::Platform,
            text,
        });
    }

    /// What is around its instances.
    pub(crate) fn isolation(&self) -> Isolation {
        self.version
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .isolation
    }

    pub(crate) fn record(&self) -> Arc<FunctionRecord> {
        self.version
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .record
            .clone()
    }
}

/// All functions, and how they change.
pub(crate) struct Functions {
    config: DaemonConfig,
    store: Arc<Store>,
    names: Names,
    sandbox: Arc<dyn Sandbox>,
    /// By `NAME.NAMESPACE`.
    deployed: RwLock<HashMap<String, Arc<Function>>>,
    /// Pools of removed functions, which may still finish invocations.
    retired: Mutex<Vec<Pool<FunctionConnection>>>,
    /// Held during a change, so that changes come one after the other.
    changing: tokio::sync::Mutex<()>,
}

/// A checked deployment.
struct Prepared {
    record: FunctionRecord,
    settings: Settings,
    isolation: Isolation,
    template: InstanceSpec,
}

fn key(name: &str) -> String {
    format!("{name}.{DEFAULT_NAMESPACE}")
}

impl Functions {
    /// Loads the functions of an earlier start. One that cannot be loaded is left out, with a line in the daemon's log.
    pub(crate) async fn load(
        config: DaemonConfig,
        store: Arc<Store>,
        names: Names,
        sandbox: Arc<dyn Sandbox>,
    ) -> Result<Self, ApiError> {
        let functions = Self {
            config,
            store: store.clone(),
            names,
            sandbox,
            deployed: RwLock::default(),
            retired: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        };
        let records = tokio::task::spawn_blocking(move || store.records.all()).await??;
        let mut prepared = Vec::new();
        for (_, record) in records {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    left_out(&error);
                    continue;
                }
            };
            let (name, digest) = (record.deployment.service.clone(), record.image_digest);
            match functions
                .prepare(record.deployment, digest, record.created_at)
                .await
            {
                Ok(function) => prepared.push(function),
                Err(source) => left_out(&ApiError::Load {
                    name,
                    source: Box::new(source),
                }),
            }
        }
        // Before the first instance is started.
        let templates: Vec<_> = prepared
            .iter()
            .map(|prepared| prepared.template.clone())
            .collect();
        functions.sandbox.retain(&templates);
        prepared
            .into_iter()
            .for_each(|prepared| functions.install(prepared));
        Ok(functions)
    }

    /// What is around instances of functions that ask for nothing in particular.
    pub(crate) fn default_isolation(&self) -> Option<Isolation> {
        self.sandbox.isolation(None).ok()
    }

    /// The function that is named `NAME` or `NAME.NAMESPACE`.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Function>> {
        let deployed = self.deployed.read().unwrap_or_else(PoisonError::into_inner);
        if name.contains('.') {
            deployed.get(name).cloned()
        } else {
            deployed.get(&key(name)).cloned()
        }
    }

    /// The same, for an answer of the API.
    pub(crate) fn named(&self, name: &str) -> Result<Arc<Function>, ApiError> {
        self.find(name).ok_or_else(|| ApiError::NotFound {
            name: name.chars().take(130).collect(),
        })
    }

    /// All functions, ordered by name.
    pub(crate) fn all(&self) -> Vec<Arc<Function>> {
        let deployed = self.deployed.read().unwrap_or_else(PoisonError::into_inner);
        let mut functions: Vec<_> = deployed.values().cloned().collect();
        drop(deployed);
        functions.sort_by(|a, b| a.name.cmp(&b.name));
        functions
    }

    /// Deploys a new function. `own_names` are the addresses under which the caller may know this daemon.
    pub(crate) async fn create(
        &self,
        deployment: FunctionDeployment,
        own_names: &[String],
    ) -> Result<(), ApiError> {
        let is_new = |deployment: &FunctionDeployment| {
            let name = deployment.service.clone();
            let found = self.find(&name).is_some();
            if found {
                Err(ApiError::Exists { name })
            } else {
                Ok(())
            }
        };
        Settings::of(&deployment, &self.config)?;
        is_new(&deployment)?;
        // Other changes need not wait for a download.
        let digest = self.names.find_or_pull(&deployment.image, own_names).await?;
        let _changing = self.changing.lock().await;
        is_new(&deployment)?;
        let prepared = self.prepare(deployment, digest, Timestamp::now()).await?;
        self.remove_stale_log(key(&prepared.record.deployment.service))
            .await?;
        self.save(&prepared).await?;
        self.tell_sandbox(Some(&prepared.template));
        self.install(prepared);
        Ok(())
    }

    /// Replaces a function. After the return no new invocation reaches the old version.
    pub(crate) async fn update(
        &self,
        deployment: FunctionDeployment,
        own_names: &[String],
    ) -> Result<(), ApiError> {
        Settings::of(&deployment, &self.config)?;
        self.named(&deployment.service)?;
        let digest = self.names.find_or_pull(&deployment.image, own_names).await?;
        let _changing = self.changing.lock().await;
        let function = self.named(&deployment.service)?;
        let prepared = self
            .prepare(deployment, digest, function.record().created_at)
            .await?;
        self.save(&prepared).await?;
        self.tell_sandbox(Some(&prepared.template));
        let Prepared {
            record,
            settings,
            isolation,
            template,
        } = prepared;
        let version = Version {
            template: template.clone(),
            record: Arc::new(record),
            isolation,
            timeout: settings.timeout,
            statistics: FunctionStatistics::begin(),
        };
        *function.version.write().unwrap_or_else(PoisonError::into_inner) = version;
        function.pool.replace(template, settings.limits);
        Ok(())
    }

    /// Removes a function and its log, be it only a record that could not be loaded. Invocations under way run to
    /// their end.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        let function = self.find(name);
        let key = key(function.as_ref().map_or(name, |function| &function.name));
        let (store, removed) = (self.store.clone(), key.clone());
        let existed = tokio::task::spawn_blocking(move || store.records.remove(&removed)).await??;
        let Some(function) = function else {
            let name = name.to_owned();
            return existed.then_some(()).ok_or(ApiError::NotFound { name });
        };
        self.deployed
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
        function.pool.close();
        self.tell_sandbox(None);
        self.retire(function.pool.clone());
        let store = self.store.clone();
        let removal = tokio::task::spawn_blocking(move || store.logs.remove(&key)).await?;
        if let Err(error) = removal {
            tracing::warn!(function = function.name, %error, "the log of a removed function could not be deleted");
        }
        Ok(())
    }

    /// Looks whether what the function's instances run is as it was made, and makes it again from the image if not. Says
    /// whether that was done.
    pub(crate) async fn mend(&self, function: &Function) -> Result<bool, InvokeError> {
        let is_intact = |root: Root| {
            let store = self.store.clone();
            tokio::task::spawn_blocking(move || store.images.is_intact(&root))
        };
        let root = function.root();
        // Whoever waits for the lock while another one mends it finds it whole.
        let _changing = if is_intact(root.clone()).await.unwrap_or(true) {
            return Ok(false);
        } else {
            self.changing.lock().await
        };
        let path = root.path().to_owned();
        if !is_intact(root).await.unwrap_or(true) {
            let (store, digest) = (self.store.clone(), function.record().image_digest);
            let image = function.record().deployment.image.clone();
            let derived = tokio::task::spawn_blocking(move || store.images.derive_program(digest)).await;
            let derived = match derived {
                Ok(derived) => derived
                    .map(drop)
                    .map_err(|source| ApiError::Derive { image, source }),
                Err(lost) => Err(lost.into()),
            };
            if let Err(source) = derived {
                let (name, source) = (function.name.clone(), Box::new(source));
                let error = InvokeError::Damaged {
                    function: name,
                    path,
                    source,
                };
                function.tell(one_line(&error));
                return Err(error);
            }
            let text = format!(
                "{} was damaged, and was made again from the image",
                path.display()
            );
            tracing::warn!(function = function.name, "{text}");
            function.tell(text);
        }
        Ok(true)
    }

    /// Tells the sandbox what is deployed, with the next version of a function, if there is one.
    fn tell_sandbox(&self, next: Option<&InstanceSpec>) {
        let deployed = self.all().into_iter().map(|function| function.template());
        let others = deployed.filter(|template| next.is_none_or(|next| next.function != template.function));
        let templates: Vec<_> = others.chain(next.cloned()).collect();
        self.sandbox.retain(&templates);
    }

    fn retire(&self, pool: Pool<FunctionConnection>) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|pool| pool.status().draining > 0);
        retired.push(pool);
    }

    /// Stops all instances, after `grace` at most also those that serve an invocation.
    pub(crate) async fn shutdown(&self, grace: Duration) {
        let retired = std::mem::take(&mut *self.retired.lock().unwrap_or_else(PoisonError::into_inner));
        let pools = self
            .all()
            .into_iter()
            .map(|function| function.pool.clone())
            .chain(retired);
        let shutdowns: Vec<_> = pools
            .map(|pool| tokio::spawn(async move { pool.shutdown(grace).await }))
            .collect();
        for shutdown in shutdowns {
            if let Err(error) = shutdown.await {
                tracing::error!(%error, "a pool could not be shut down");
            }
        }
    }

    /// Does work that blocks while no function changes.
    pub(crate) async fn unchanged<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let _changing = self.changing.lock().await;
        Ok(tokio::task::spawn_blocking(work).await?)
    }

    async fn prepare(
        &self,
        mut deployment: FunctionDeployment,
        image_digest: Digest,
        created_at: Timestamp,
    ) -> Result<Prepared, ApiError> {
        let settings = Settings::of(&deployment, &self.config)?;
        let isolation = self.sandbox.isolation(settings.isolation)?;
        DEFAULT_NAMESPACE.clone_into(&mut deployment.namespace);
        let store = self.store.clone();
        let program = tokio::task::spawn_blocking(move || store.images.derive_program(image_digest)).await?;
        let program = program.map_err(|source| ApiError::Derive {
            image: deployment.image.clone(),
            source,
        })?;
        let mut template = template(&deployment, program, &settings, self.config.ready_timeout);
        // What the function is shown to have is what each of its instances is started with.
        template.isolation = Some(isolation);
        Ok(Prepared {
            record: FunctionRecord {
                deployment,
                created_at,
                image_digest,
            },
            settings,
            isolation,
            template,
        })
    }

    /// A daemon that was killed in the middle of a removal leaves the log of a function that is gone.
    async fn remove_stale_log(&self, key: String) -> Result<(), ApiError> {
        let store = self.store.clone();
        let removal = move || -> Result<std::io::Result<()>, ApiError> {
            let is_stale = !store.records.contains(&key)?;
            Ok(if is_stale { store.logs.remove(&key) } else { Ok(()) })
        };
        if let Err(error) = tokio::task::spawn_blocking(removal).await?? {
            tracing::warn!(%error, "the log of a function that was removed earlier could not be deleted");
        }
        Ok(())
    }

    async fn save(&self, prepared: &Prepared) -> Result<(), ApiError> {
        let (store, record) = (self.store.clone(), prepared.record.clone());
        let save = move || store.records.put(&key(&record.deployment.service), &record);
        Ok(tokio::task::spawn_blocking(save).await??)
    }

    fn install(&self, prepared: Prepared) {
        let Prepared {
            record,
            settings,
            isolation,
            template,
        } = prepared;
        let name = record.deployment.service.clone();
        let key = key(&name);
        let log = self.store.logs.function(&key);
        let function = Function {
            name,
            pool: Pool::new(
                self.sandbox.clone(),
                log.clone(),
                template.clone(),
                settings.limits,
            ),
            log,
            invocations: AtomicU64::new(0),
            version: RwLock::new(Version {
                template,
                record: Arc::new(record),
                isolation,
                timeout: settings.timeout,
                statistics: FunctionStatistics::begin(),
            }),
        };
        self.deployed
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, Arc::new(function));
    }
}

/// Says that a function of an earlier start is not there now.
fn left_out(error: &dyn Error) {
    tracing::error!(
        "a function is left out until it is deployed again or removed: {}",
        one_line(error)
    );
}

/// How instances of the function are started; the pool names each.
fn template(
    deployment: &FunctionDeployment,
    program: Program,
    settings: &Settings,
    ready_timeout: Duration,
) -> InstanceSpec {
    let mut environment = program.environment;
    let mut set = |name: &str, value: &str, replace: bool| match environment
        .iter_mut()
        .find(|(existing, _)| existing == name)
    {
        Some((_, existing)) if replace => value.clone_into(existing),
        Some(_) => {}
        None => environment.push((name.to_owned(), value.to_owned())),
    };
    // So that programs that listen on a port of their choice choose the one that the image names.
    set("PORT", &program.port.to_string(), false);
    set("OPENFAAS_NAME", &deployment.service, true);
    if !deployment.env_process.is_empty() {
        set("fprocess", &deployment.env_process, true);
    }
    for (name, value) in deployment.env_vars.iter().flatten() {
        set(name, value, true);
    }
    InstanceSpec {
        function: deployment.service.clone(),
        instance: String::new(),
        root: program.root,
        root_digest: Some(program.root_digest.to_bytes()),
        arguments: program.arguments,
        environment,
        working_directory: program.working_directory,
        rewrites_calls: settings.rewrites_calls,
        is_cloned: settings.is_cloned,
        is_reset: settings.is_reset,
        isolation: settings.isolation,
        egress: settings.egress.clone(),
        port: program.port,
        memory_bytes: settings.memory_bytes,
        processor_millis: settings.processor_millis,
        ready_timeout,
    }
}
