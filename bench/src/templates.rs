//! Functions as `spore new` writes them, in every language: their cold starts, by copy of a snapshot and booted, all in the same
//! rounds; and how long it takes to deploy an image that is stored already.
//!
//! A template whose language's tool is missing here is left out by name. Two of them are given a program: that of `binary` is the
//! user's own, and the one of `dockerfile` would otherwise begin with an image of a registry. It is the function in C.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::runtimes::Planned;
use crate::subject::{ColdFunction, SetUp, Subject, exchange};

/// A template, and what its functions are called in the report: copied, and booted.
struct Template {
    language: &'static str,
    copied: &'static str,
    booted: &'static str,
}

const fn template(language: &'static str, copied: &'static str, booted: &'static str) -> Template {
    Template {
        language,
        copied,
        booted,
    }
}

const TEMPLATES: [Template; 7] = [
    template("c", "c", "c, booted"),
    template("rust", "rust", "rust, booted"),
    template("go", "go", "go, booted"),
    template("python", "python", "python, booted"),
    template("node", "node", "node, booted"),
    template("binary", "binary", "binary, booted"),
    template("dockerfile", "dockerfile", "dockerfile, booted"),
];
/// Languages whose stored images are deployed, and the names of the series.
const DEPLOYED: [(&str, &str); 3] = [
    ("c", "deploy-c"),
    ("python", "deploy-python"),
    ("node", "deploy-node"),
];
const NOT_KEPT: &str = "dev.spore.idle-timeout=0s";
/// What builds the image of the template `dockerfile` without a registry.
const DOCKERFILE: &str =
    "FROM scratch\nCOPY function /bin/function\nENTRYPOINT [\"/bin/function\"]\nEXPOSE 8080\n";
/// The name of the whole of a deployment in the report.
pub(crate) const TO_THE_ANSWER: &str = "to the answer";
/// And of the boot that is a part of it.
pub(crate) const BOOT: &str = "boot";

/// Copied and booted functions of all templates.
pub(crate) fn starts(set_up: &SetUp) -> Result<Vec<Box<dyn Subject>>> {
    let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
    for template in TEMPLATES {
        let Some(booted) = deploy(set_up, template.language)? else {
            continue;
        };
        let copied = format!("{booted}-copied");
        let image = format!("{booted}:latest");
        let options = ["--annotation", NOT_KEPT, "--snapshot"];
        set_up
            .daemon
            .spore_ok(&[&["deploy", &copied, "--image", &image], &options[..]].concat());
        subjects.push(Box::new(
            ColdFunction::new(set_up, &copied).called(template.copied),
        ));
        subjects.push(Box::new(
            ColdFunction::new(set_up, &booted).called(template.booted),
        ));
    }
    Ok(subjects)
}

/// Deployments of stored images: the command alone, the command and the first answer, and the boot which that takes.
pub(crate) fn deployments(set_up: &SetUp) -> Result<Vec<Planned>> {
    let mut series = Vec::new();
    for (language, kind) in DEPLOYED {
        let Some(booted) = deploy(set_up, language)? else {
            continue;
        };
        let subjects: Vec<Box<dyn Subject>> = vec![
            Box::new(Deployment::new(set_up, "spore", &booted)),
            Box::new(Deployment::new(set_up, TO_THE_ANSWER, &booted).answered()),
            Box::new(ColdFunction::new(set_up, &booted).called(BOOT)),
        ];
        series.push((kind, subjects));
    }
    Ok(series)
}

/// Writes the function of a template, and deploys it so that each invocation boots an instance; its name. None if it cannot be
/// built on this machine.
fn deploy(set_up: &SetUp, language: &str) -> Result<Option<String>> {
    let name = format!("template-{language}");
    let folder = set_up.folder().join(&name);
    if !folder.exists() {
        write(set_up, language, &name, &folder)?;
    }
    let folder = utf8(&folder)?;
    let output = set_up.daemon.spore(&["deploy", folder, "--annotation", NOT_KEPT]);
    if output.status.success() {
        return Ok(Some(name));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    eprintln!("left out: the template for {language}: {}", said.trim());
    Ok(None)
}

fn write(set_up: &SetUp, language: &str, name: &str, folder: &Path) -> Result<()> {
    set_up
        .daemon
        .spore_ok(&["new", name, "--lang", language, "--directory", utf8(folder)?]);
    let failed = "the temporary folder is not writable";
    if matches!(language, "binary" | "dockerfile") {
        std::fs::copy(set_up.function(), folder.join("function")).context(failed)?;
    }
    if language == "dockerfile" {
        std::fs::write(folder.join("Dockerfile"), DOCKERFILE).context(failed)?;
    }
    Ok(())
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("the temporary folder's path is not UTF-8")
}

/// `spore deploy` of an image that is stored, under a name that no function has.
struct Deployment {
    name: &'static str,
    isolation: String,
    deploy: Command,
    remove: Command,
    gateway: SocketAddr,
    /// Path of the function.
    path: String,
    /// Whether its first answer belongs to it.
    is_answered: bool,
}

impl Deployment {
    fn new(set_up: &SetUp, name: &'static str, stored: &str) -> Deployment {
        let function = format!("{stored}-deployed");
        let image = format!("{stored}:latest");
        let quiet = |arguments: &[&str]| {
            let mut command = set_up.daemon.command(arguments);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command
        };
        Deployment {
            name,
            isolation: set_up.isolation.clone(),
            deploy: quiet(&["deploy", &function, "--image", &image, "--snapshot"]),
            remove: quiet(&["remove", &function]),
            gateway: set_up.daemon.address(),
            path: format!("/function/{function}"),
            is_answered: false,
        }
    }

    /// The same up to the first answer.
    fn answered(self) -> Deployment {
        Deployment {
            is_answered: true,
            ..self
        }
    }
}

impl Subject for Deployment {
    fn name(&self) -> &str {
        self.name
    }

    fn isolation(&self) -> &str {
        &self.isolation
    }

    fn meaning(&self) -> &'static str {
        "spore deploy of an image that is stored, alone and up to the first answer; beside it a boot"
    }

    fn measure(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let status = self.deploy.status().context("the spore binary cannot be run")?;
        ensure!(status.success(), "the deployment failed: {status}");
        if self.is_answered {
            let answer = exchange(self.gateway, &self.path).context("the gateway cut the request off")?;
            ensure!(
                answer.starts_with("HTTP/1.1 200"),
                "the gateway answered {answer:?}"
            );
        }
        let elapsed = start.elapsed();
        let status = self.remove.status().context("the spore binary cannot be run")?;
        ensure!(status.success(), "the function cannot be removed: {status}");
        Ok(elapsed)
    }
}
