//! The deployed functions: in memory for invocations, in the store for the next start of the daemon.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use http::Request;
use jiff::Timestamp;
use spore_pool::{AboveMaximum, LoadKind, Pool};
use spore_sandbox::{
    Availability, InstanceSpec, Isolation, LogLine, LogSink, LogSource, Root, Sandbox, SandboxKind,
};
use spore_store::{
    DeriveError, Digest, FunctionDeployment, FunctionLog, FunctionRecord, NamespaceRecord, Program, Protocol,
    Store,
};

use spore_trigger::Triggers;
use spore_trigger::folder::Root as TriggerRoot;
use tokio::sync::watch;

use crate::config::DaemonConfig;
use crate::connection::FunctionConnection;
use crate::errors::{ApiError, InvokeError, one_line};
use crate::exec::ExecSettings;
use crate::fixed_request::FixedRequest;
use crate::images::Names;
use crate::lambda::{self, EventForm};
use crate::metrics::InvocationCounts;
use crate::names::{DEFAULT_NAMESPACE, FunctionId, excerpt};
use crate::settings::{Settings, SettingsError};
use crate::spans::Spans;
use crate::statistics::FunctionStatistics;
use crate::usage::ProcessorTotal;

/// A deployed function.
pub(crate) struct Function {
    pub(crate) id: FunctionId,
    /// As messages name it.
    pub(crate) name: String,
    pub(crate) pool: Pool<FunctionConnection>,
    pub(crate) log: Arc<FunctionLog>,
    /// Invocations since the daemon started.
    pub(crate) invocations: AtomicU64,
    /// More of them.
    pub(crate) counts: InvocationCounts,
    /// What its instances have used of the processors.
    pub(crate) processor: Mutex<ProcessorTotal>,
    /// The last call that has scaled it, if any, has asked for no instance.
    scaled_to_zero: AtomicBool,
    pub(crate) version: RwLock<Version>,
}

/// What a replacement of the function changes.
pub(crate) struct Version {
    record: Arc<FunctionRecord>,
    /// How its instances are started.
    pub(crate) template: InstanceSpec,
    isolation: Isolation,
    timeout: Duration,
    /// Most invocations under way for each instance.
    max_inflight: Option<u32>,
    /// Whether an instance may serve several invocations at a time.
    is_shared: bool,
    /// What its load is, if the pool has to be told.
    load: Option<LoadKind>,
    /// The functions that its answers go on to, as `NAME.NAMESPACE`.
    chain: Option<Arc<[String]>>,
    triggers: Arc<Triggers>,
    upgrade_idle_timeout: Duration,
    /// What each invocation is, if not what its caller asks.
    fixed_request: Option<FixedRequest>,
    protocol: Protocol,
    lambda: Option<LambdaSettings>,
    /// None if it is no command.
    exec: Option<Arc<ExecSettings>>,
    statistics: Arc<FunctionStatistics>,
}

/// How requests become events of a Lambda function.
#[derive(Debug, Clone)]
pub(crate) struct LambdaSettings {
    pub(crate) form: EventForm,
    pub(crate) region: Arc<str>,
}

impl LambdaSettings {
    /// None if the function is none of Lambda's.
    fn of(settings: &Settings, template: &InstanceSpec) -> Option<Self> {
        let mut variables = template.environment.iter();
        let region = variables.find(|(name, _)| name == "AWS_REGION");
        (settings.protocol == Protocol::Lambda).then(|| Self {
            form: settings.event_form,
            region: region.map_or(lambda::DEFAULT_REGION, |(_, value)| value).into(),
        })
    }
}

impl Function {
    fn version(&self) -> RwLockReadGuard<'_, Version> {
        self.version.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it gets its invocations.
    pub(crate) fn protocol(&self) -> Protocol {
        self.version().protocol
    }

    /// How requests become its events; none if they are passed on as they are.
    pub(crate) fn lambda(&self) -> Option<LambdaSettings> {
        self.version().lambda.clone()
    }

    /// How long an invocation may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.version().timeout
    }

    /// Most invocations under way for each instance, if there is a bound beside that of those that wait.
    pub(crate) fn max_inflight(&self) -> Option<u32> {
        self.version().max_inflight
    }

    /// What calls it without a caller.
    pub(crate) fn triggers(&self) -> Arc<Triggers> {
        self.version().triggers.clone()
    }

    /// The functions that its answers go on to, as `NAME.NAMESPACE`; none if callers get them.
    pub(crate) fn chain(&self) -> Option<Arc<[String]>> {
        self.version().chain.clone()
    }

    /// What its load is, if the pool has to be told.
    pub(crate) fn told_load(&self) -> Option<LoadKind> {
        self.version().load
    }

    /// Keeps so many instances started until the next such call or the next version.
    pub(crate) fn scale(&self, instances: u64) -> Result<(), AboveMaximum> {
        self.pool.scale(instances)?;
        self.scaled_to_zero.store(instances == 0, Ordering::Relaxed);
        Ok(())
    }

    /// The same where a gateway scales it from zero, which it does before it sends an invocation: one instance is
    /// started and goes when it is idle for long, unless the function keeps some anyway.
    pub(crate) fn scale_from_zero(&self) {
        self.scaled_to_zero.store(false, Ordering::Relaxed);
        // Where none may be idle, the invocation starts its own.
        let _ = self.pool.pre_boot(1);
    }

    /// Whether it has no instance because somebody wants it so.
    pub(crate) fn is_scaled_to_zero(&self) -> bool {
        self.scaled_to_zero.load(Ordering::Relaxed)
    }

    /// Whether an instance may serve several invocations at a time.
    pub(crate) fn is_shared(&self) -> bool {
        self.version().is_shared
    }

    /// How long an upgraded connection may be idle.
    pub(crate) fn upgrade_idle_timeout(&self) -> Duration {
        self.version().upgrade_idle_timeout
    }

    /// A request as the function is asked.
    pub(crate) fn asked<B>(&self, request: Request<B>) -> Request<B> {
        match &self.version().fixed_request {
            Some(fixed) => fixed.apply(request),
            None => request,
        }
    }

    /// How its command is run, if it is one.
    pub(crate) fn exec(&self) -> Option<Arc<ExecSettings>> {
        self.version().exec.clone()
    }

    /// A command that was deployed is booted once, so that its first invocation finds its snapshot, and OpenFaaS's clients,
    /// which wait for an instance, find one.
    fn make_ready(&self) {
        if self.exec().is_some() {
            // Where none may be idle there is nothing to wait with.
            let _ = self.pool.pre_boot(1);
        }
    }

    /// Those of the current version.
    pub(crate) fn statistics(&self) -> Arc<FunctionStatistics> {
        self.version().statistics.clone()
    }

    /// Whether its instances have a root file system, rather than the program alone.
    pub(crate) fn has_file_system(&self) -> bool {
        !matches!(self.root(), Root::Program(_))
    }

    fn root(&self) -> Root {
        self.version().template.root.clone()
    }

    pub(crate) fn template(&self) -> InstanceSpec {
        self.version().template.clone()
    }

    /// Writes a line of the platform's to its log.
    pub(crate) fn tell(&self, text: String) {
        self.log.write(LogLine {
            instance: String::new(),
            time: SystemTime::now(),
            source: LogSource::Platform,
            text,
        });
    }

    /// What is around its instances.
    pub(crate) fn isolation(&self) -> Isolation {
        self.version().isolation
    }

    pub(crate) fn record(&self) -> Arc<FunctionRecord> {
        self.version().record.clone()
    }
}

/// All functions, and how they change.
pub(crate) struct Functions {
    pub(crate) config: DaemonConfig,
    pub(crate) store: Arc<Store>,
    names: Names,
    sandbox: Arc<dyn Sandbox>,
    /// By `NAME.NAMESPACE`.
    deployed: RwLock<HashMap<String, Arc<Function>>>,
    /// What is known of namespaces; the default one need not be among them.
    pub(crate) namespaces: RwLock<BTreeMap<String, NamespaceRecord>>,
    /// Pools of removed functions, which may still finish invocations.
    retired: Mutex<Vec<Pool<FunctionConnection>>>,
    /// Held during a change, so that changes come one after the other.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Told after each change.
    changed: watch::Sender<()>,
    /// Takes spans of invocations, if they are sent anywhere.
    pub(crate) spans: Option<Arc<Spans>>,
    /// The folder whose files functions may be told of.
    trigger_folder: Option<Arc<TriggerRoot>>,
}

/// A checked deployment.
struct Prepared {
    id: FunctionId,
    record: FunctionRecord,
    settings: Settings,
    isolation: Isolation,
    exec: Option<Arc<ExecSettings>>,
    template: InstanceSpec,
}

/// The function that a deployment describes.
fn id_of(deployment: &FunctionDeployment) -> FunctionId {
    let namespace = match deployment.namespace.as_str() {
        "" => DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    FunctionId {
        name: deployment.service.clone(),
        namespace: namespace.to_owned(),
    }
}

impl Functions {
    /// Loads the functions of an earlier start. One that cannot be loaded is left out, with a line in the daemon's log.
    pub(crate) async fn load(
        config: DaemonConfig,
        store: Arc<Store>,
        names: Names,
        sandbox: Arc<dyn Sandbox>,
        spans: Option<Arc<Spans>>,
    ) -> Result<Self, ApiError> {
        let trigger_folder = config.trigger_folder.as_deref().map(TriggerRoot::open);
        let trigger_folder = trigger_folder.transpose()?.map(Arc::new);
        let reading = store.clone();
        let namespaces = tokio::task::spawn_blocking(move || reading.namespaces.all()).await??;
        let functions = Self {
            config,
            store: store.clone(),
            names,
            sandbox,
            deployed: RwLock::default(),
            namespaces: RwLock::new(namespaces),
            retired: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            changed: watch::Sender::default(),
            spans,
            trigger_folder,
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
        self.sandbox.isolation(self.sandbox.kind(), None).ok()
    }

    /// The kinds of sandbox that functions can name.
    pub(crate) fn sandbox_kinds(&self) -> Vec<Availability> {
        self.sandbox.kinds()
    }

    /// Tells after each change of what is deployed.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The folder whose files functions may be told of, if there is one.
    pub(crate) fn trigger_folder(&self) -> Option<Arc<TriggerRoot>> {
        self.trigger_folder.clone()
    }

    /// Looks whether the folders are there that a function is to watch.
    async fn check_folders(&self, settings: &Settings) -> Result<(), ApiError> {
        let triggers = settings.triggers.clone();
        if triggers.folders.is_empty() {
            return Ok(());
        }
        let root = self.trigger_folder().ok_or(SettingsError::NoTriggerFolder)?;
        let open = move || {
            triggers
                .folders
                .iter()
                .try_for_each(|path| root.folder(path).map(drop))
        };
        Ok(tokio::task::spawn_blocking(open).await??)
    }

    /// The function that is named `NAME` or `NAME.NAMESPACE`.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Function>> {
        let deployed = self.deployed.read().unwrap_or_else(PoisonError::into_inner);
        if name.contains('.') {
            deployed.get(name).cloned()
        } else {
            deployed.get(&format!("{name}.{DEFAULT_NAMESPACE}")).cloned()
        }
    }

    /// The function that a request to the API means.
    pub(crate) fn named(&self, id: &FunctionId) -> Result<Arc<Function>, ApiError> {
        self.find(&id.key()).ok_or_else(|| ApiError::NotFound {
            name: excerpt(&id.short()),
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

    /// Those of a namespace, ordered by name.
    pub(crate) fn all_in(&self, namespace: &str) -> Vec<Arc<Function>> {
        let mut functions = self.all();
        functions.retain(|function| function.id.namespace == namespace);
        functions
    }

    /// Deploys a new function. `own_names` are the addresses under which the caller may know this daemon.
    pub(crate) async fn create(
        &self,
        deployment: FunctionDeployment,
        own_names: &[String],
    ) -> Result<(), ApiError> {
        let settings = Settings::of(&deployment, &self.config)?;
        self.check_folders(&settings).await?;
        let id = id_of(&deployment);
        let is_new = || {
            self.check_namespace_for_new(&id.namespace)?;
            match self.find(&id.key()) {
                Some(_) => Err(ApiError::Exists { name: id.short() }),
                None => Ok(()),
            }
        };
        is_new()?;
        // Other changes need not wait for a download.
        let digest = self.names.find_or_pull(&deployment.image, own_names).await?;
        let _changing = self.changing.lock().await;
        is_new()?;
        let prepared = self.prepare(deployment, digest, Timestamp::now()).await?;
        self.remove_stale_log(id.key()).await?;
        self.save(&prepared).await?;
        self.tell_sandbox(Some(&prepared.template));
        self.install(prepared);
        self.named(&id)?.make_ready();
        Ok(())
    }

    /// Replaces a function. After the return no new invocation reaches the old version.
    pub(crate) async fn update(
        &self,
        deployment: FunctionDeployment,
        own_names: &[String],
    ) -> Result<(), ApiError> {
        let settings = Settings::of(&deployment, &self.config)?;
        self.check_folders(&settings).await?;
        let id = id_of(&deployment);
        self.named(&id)?;
        let digest = self.names.find_or_pull(&deployment.image, own_names).await?;
        let _changing = self.changing.lock().await;
        let function = self.named(&id)?;
        let prepared = self
            .prepare(deployment, digest, function.record().created_at)
            .await?;
        self.save(&prepared).await?;
        self.tell_sandbox(Some(&prepared.template));
        let Prepared {
            id: _,
            record,
            settings,
            isolation,
            exec,
            template,
        } = prepared;
        let version = Version {
            template: template.clone(),
            record: Arc::new(record),
            isolation,
            timeout: settings.timeout,
            max_inflight: settings.max_inflight,
            is_shared: settings.limits.concurrency > 1,
            load: settings.told_load(),
            chain: settings.chain.clone(),
            triggers: settings.triggers.clone(),
            upgrade_idle_timeout: settings.upgrade_idle_timeout,
            fixed_request: settings.fixed_request.clone(),
            protocol: settings.protocol,
            lambda: LambdaSettings::of(&settings, &template),
            exec,
            statistics: FunctionStatistics::begin(),
        };
        *function.version.write().unwrap_or_else(PoisonError::into_inner) = version;
        function.pool.replace(template, settings.limits);
        function.scaled_to_zero.store(false, Ordering::Relaxed);
        self.changed.send_replace(());
        function.make_ready();
        Ok(())
    }

    /// Removes a function and its log, be it only a record that could not be loaded. Invocations under way run to
    /// their end.
    pub(crate) async fn remove(&self, id: &FunctionId) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        let key = id.key();
        let function = self.find(&key);
        let (store, removed) = (self.store.clone(), key.clone());
        let existed = tokio::task::spawn_blocking(move || store.records.remove(&removed)).await??;
        let Some(function) = function else {
            let name = excerpt(&id.short());
            return existed.then_some(()).ok_or(ApiError::NotFound { name });
        };
        self.deployed
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
        function.pool.close();
        self.changed.send_replace(());
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
            let variables = variables(&function.record().deployment);
            let is_foreign = function.template().sandbox == SandboxKind::Foreign;
            let derive = move || derive(&store, digest, is_foreign, &variables);
            let derived = tokio::task::spawn_blocking(derive).await;
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
    pub(crate) fn tell_sandbox(&self, next: Option<&InstanceSpec>) {
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
        let mut settings = Settings::of(&deployment, &self.config)?;
        let isolation = self.sandbox.isolation(settings.sandbox, settings.isolation)?;
        let id = id_of(&deployment);
        deployment.namespace.clone_from(&id.namespace);
        let secrets = self
            .secrets(&id.namespace, deployment.secrets.as_deref().unwrap_or_default())
            .await?;
        let store = self.store.clone();
        let variables = variables(&deployment);
        let is_foreign = settings.sandbox == SandboxKind::Foreign;
        let derive = move || derive(&store, image_digest, is_foreign, &variables);
        let program = tokio::task::spawn_blocking(derive).await?;
        let program = program.map_err(|source| ApiError::Derive {
            image: deployment.image.clone(),
            source,
        })?;
        let is_command = program.protocol == Protocol::Exec;
        if is_command {
            settings.run_commands(&deployment)?;
        } else if program.protocol == Protocol::Lambda {
            settings.ask_for_events(&deployment)?;
        }
        let mut template = template(&id, &deployment, program, &settings, self.config.ready_timeout);
        let exec = match is_command {
            true => Some(Arc::new(ExecSettings::of(&template.environment)?)),
            false => None,
        };
        settings.bound_inflight(&deployment, &template.environment)?;
        template.command = exec.as_ref().map(|exec| exec.command);
        template.secrets = secrets;
        // What the function is shown to have is what each of its instances is started with.
        template.isolation = Some(isolation);
        self.sandbox.check(&template)?;
        Ok(Prepared {
            id,
            record: FunctionRecord {
                deployment,
                created_at,
                image_digest,
            },
            settings,
            isolation,
            exec,
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
        let (store, record, key) = (self.store.clone(), prepared.record.clone(), prepared.id.key());
        let save = move || store.records.put(&key, &record);
        Ok(tokio::task::spawn_blocking(save).await??)
    }

    fn install(&self, prepared: Prepared) {
        let Prepared {
            id,
            record,
            settings,
            isolation,
            exec,
            template,
        } = prepared;
        let key = id.key();
        let log = self.store.logs.function(&key);
        let function = Function {
            name: id.short(),
            id,
            pool: Pool::new(
                self.sandbox.clone(),
                log.clone(),
                template.clone(),
                settings.limits,
            ),
            log,
            invocations: AtomicU64::new(0),
            counts: InvocationCounts::default(),
            processor: Mutex::default(),
            scaled_to_zero: AtomicBool::new(false),
            version: RwLock::new(Version {
                lambda: LambdaSettings::of(&settings, &template),
                template,
                record: Arc::new(record),
                isolation,
                timeout: settings.timeout,
                max_inflight: settings.max_inflight,
                is_shared: settings.limits.concurrency > 1,
                load: settings.told_load(),
                chain: settings.chain.clone(),
                triggers: settings.triggers.clone(),
                upgrade_idle_timeout: settings.upgrade_idle_timeout,
                fixed_request: settings.fixed_request.clone(),
                protocol: settings.protocol,
                exec,
                statistics: FunctionStatistics::begin(),
            }),
        };
        self.deployed
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, Arc::new(function));
        self.changed.send_replace(());
    }
}

/// Says that a function of an earlier start is not there now.
fn left_out(error: &dyn Error) {
    tracing::error!(
        "a function is left out until it is deployed again or removed: {}",
        one_line(error)
    );
}

/// What instances run: a Linux program, or another project's unikernel.
fn derive(
    store: &Store,
    image: Digest,
    is_foreign: bool,
    variables: &BTreeMap<String, String>,
) -> Result<Program, DeriveError> {
    match is_foreign {
        true => store.images.derive_unikernel(image, variables),
        false => store.images.derive_program(image, variables),
    }
}

/// The variables that a deployment sets.
fn variables(deployment: &FunctionDeployment) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    if !deployment.env_process.is_empty() {
        variables.insert("fprocess".to_owned(), deployment.env_process.clone());
    }
    variables.extend(deployment.env_vars.clone().unwrap_or_default());
    variables
}

/// How instances of the function are started; the pool names each.
fn template(
    id: &FunctionId,
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
    if program.protocol != Protocol::Exec {
        set("PORT", &program.port.to_string(), false);
    }
    set("OPENFAAS_NAME", &id.name, true);
    set("OPENFAAS_NAMESPACE", &id.namespace, true);
    if settings.protocol == Protocol::Lambda {
        for (name, value) in lambda::environment(&id.name, settings.memory_bytes) {
            // What tells a function who it is comes from here; the rest may be the image's.
            set(name, &value, name.starts_with("AWS_LAMBDA_"));
        }
    }
    for (name, value) in &variables(deployment) {
        set(name, value, true);
    }
    InstanceSpec {
        function: id.short(),
        instance: String::new(),
        root: program.root,
        root_digest: Some(program.root_digest.to_bytes()),
        arguments: program.arguments,
        environment,
        working_directory: program.working_directory,
        user: program.user,
        secrets: Vec::new(),
        rewrites_calls: settings.rewrites_calls,
        is_cloned: settings.is_cloned,
        is_reset: settings.is_reset,
        isolation: settings.isolation,
        sandbox: settings.sandbox,
        egress: settings.egress.clone(),
        port: program.port,
        serves_runtime_api: settings.protocol == Protocol::Lambda,
        command: None,
        unikernel: program.unikernel,
        memory_bytes: settings.memory_bytes,
        processor_millis: settings.processor_millis,
        ready_timeout,
    }
}
