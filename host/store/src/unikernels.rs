//! Images that hold a unikernel of another project, recognised by what they say of themselves.
//!
//! ```text
//!   com.urunc.unikernel.*   annotations of the manifest, labels, or /urunc.json (values in base64), in this order
//!   org.unikraft.*          annotations of the manifest and of layers; the operating system is the monitor
//! ```
//!
//! They are stored as any image; `host/sandbox-vmm` runs those that are for QEMU.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::{ImageConfiguration, ImageManifest};
use serde::Serialize;

use crate::manifests::is_monitor;

const URUNC: &str = "com.urunc.unikernel.";
const UNIKRAFT: &str = "org.unikraft.";
/// What an image for urunc must say.
const URUNC_REQUIRED: [&str; 3] = ["unikernelType", "hypervisor", "binary"];
/// Where it says so if annotations do not arrive.
pub(crate) const URUNC_FILE: &str = "urunc.json";
/// Longest such file, in bytes.
const URUNC_FILE_BYTES_MAX: u64 = 64 << 10;
/// Most settings that are kept, and the longest value of one, in bytes.
const SETTINGS_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 4096;

/// Whose form an image's settings have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnikernelFormat {
    /// That of urunc.
    Urunc,
    /// That of Unikraft.
    Unikraft,
}

/// A unikernel of another project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unikernel {
    /// Whose form its settings have.
    pub format: UnikernelFormat,
    /// What it is, for example `rumprun`.
    pub kind: String,
    /// The monitor that it is for, for example `qemu` or `hvt`.
    pub monitor: String,
    /// Its settings, without the prefix.
    pub settings: BTreeMap<String, String>,
}

impl fmt::Display for Unikernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "a {} unikernel for the monitor {}",
            self.kind, self.monitor
        )
    }
}

/// What an image says of itself without a look into its layers.
pub(crate) fn recognise(manifest: &ImageManifest, configuration: &ImageConfiguration) -> Option<Unikernel> {
    let annotations = manifest.annotations().iter().flatten();
    let config = configuration.config().as_ref();
    let labels = config
        .and_then(|config| config.labels().as_ref())
        .into_iter()
        .flatten();
    let urunc = settings(URUNC, annotations.clone()).or_lacking(settings(URUNC, labels));
    urunc_of(urunc).or_else(|| unikraft_of(manifest, configuration))
}

/// What the file of urunc says.
pub(crate) fn recognise_file(file: impl Read) -> Option<Unikernel> {
    let mut text = Vec::new();
    file.take(URUNC_FILE_BYTES_MAX + 1).read_to_end(&mut text).ok()?;
    if text.len() as u64 > URUNC_FILE_BYTES_MAX {
        return None;
    }
    let values: BTreeMap<String, String> = serde_json::from_slice(&text).ok()?;
    let decoded = values.into_iter().filter_map(|(name, value)| {
        let value = STANDARD.decode(value.trim_end()).ok()?;
        Some((name, String::from_utf8(value).ok()?))
    });
    let decoded: Vec<_> = decoded.collect();
    urunc_of(settings(URUNC, decoded.iter().map(|(name, value)| (name, value))))
}

/// Settings with a prefix.
#[derive(Default)]
struct Settings(BTreeMap<String, String>);

impl Settings {
    /// The others, where these are not whole.
    fn or_lacking(self, others: Self) -> Self {
        let is_whole = URUNC_REQUIRED.iter().all(|name| self.0.contains_key(*name));
        if is_whole { self } else { others }
    }
}

/// Those with the prefix that are a line of text, without it.
fn settings<'a>(prefix: &str, all: impl Iterator<Item = (&'a String, &'a String)>) -> Settings {
    let own = all.filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
    let is_line = |text: &str| text.len() <= VALUE_BYTES_MAX && !text.chars().any(char::is_control);
    let lines = own.filter(|(name, value)| is_line(name) && is_line(value));
    let mut sorted: BTreeMap<_, _> = lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    while sorted.len() > SETTINGS_MAX {
        sorted.pop_last();
    }
    Settings(sorted)
}

fn urunc_of(Settings(settings): Settings) -> Option<Unikernel> {
    let value = |name| settings.get(name).filter(|value| !value.is_empty()).cloned();
    let [kind, monitor, _] = URUNC_REQUIRED.map(value);
    value(URUNC_REQUIRED[2])?;
    Some(Unikernel {
        format: UnikernelFormat::Urunc,
        kind: kind?,
        monitor: monitor?,
        settings,
    })
}

fn unikraft_of(manifest: &ImageManifest, configuration: &ImageConfiguration) -> Option<Unikernel> {
    let of_layers = manifest
        .layers()
        .iter()
        .filter_map(|layer| layer.annotations().as_ref());
    let all = manifest
        .annotations()
        .as_ref()
        .into_iter()
        .chain(of_layers)
        .flatten();
    let Settings(settings) = settings(UNIKRAFT, all);
    let os = configuration.os();
    if settings.is_empty() || !(is_monitor(os) || settings.contains_key("kernel.image")) {
        return None;
    }
    Some(Unikernel {
        format: UnikernelFormat::Unikraft,
        kind: "Unikraft".to_owned(),
        monitor: if is_monitor(os) {
            os.to_string()
        } else {
            "qemu".to_owned()
        },
        settings,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn recognised(annotations: Value, labels: Value, os: &str, layer: Value) -> Option<Unikernel> {
        let digest = crate::Digest::of(b"").to_string();
        let descriptor = |annotations: Value| json!({"mediaType": "a/b", "size": 0, "digest": digest, "annotations": annotations});
        let manifest = json!({
            "schemaVersion": 2, "annotations": annotations,
            "config": descriptor(json!({})), "layers": [descriptor(layer)],
        });
        let configuration = json!({
            "architecture": "amd64", "os": os, "rootfs": {"type": "layers", "diff_ids": []},
            "config": {"Labels": labels},
        });
        recognise(
            &serde_json::from_value(manifest).expect("a manifest"),
            &serde_json::from_value(configuration).expect("a configuration"),
        )
    }

    fn urunc(kind: &str) -> Value {
        json!({
            "com.urunc.unikernel.unikernelType": kind,
            "com.urunc.unikernel.hypervisor": "hvt",
            "com.urunc.unikernel.binary": "/unikernel/app.hvt",
        })
    }

    #[test]
    fn images_for_urunc_are_recognised() {
        let found = recognised(urunc("rumprun"), urunc("mirage"), "linux", json!({})).expect("a unikernel");
        assert_eq!(found.to_string(), "a rumprun unikernel for the monitor hvt");
        assert_eq!(found.settings["binary"], "/unikernel/app.hvt");
        let found = recognised(json!({}), urunc("mirage"), "linux", json!({})).expect("a unikernel");
        assert_eq!(found.kind, "mirage");
        let mut partial = urunc("mirage");
        partial["com.urunc.unikernel.binary"] = "".into();
        assert_eq!(recognised(partial, json!({}), "linux", json!({})), None);
        let mut odd = urunc("mirage\n");
        odd["com.urunc.unikernel.binary"] = "x".repeat(5000).into();
        assert_eq!(recognised(odd, json!({}), "linux", json!({})), None);
        assert_eq!(recognised(json!({"a": "b"}), json!({}), "linux", json!({})), None);
    }

    #[test]
    fn the_file_of_urunc_is_read() {
        let encoded = |text: &str| STANDARD.encode(text);
        let file = json!({
            "com.urunc.unikernel.unikernelType": encoded("unikraft"),
            "com.urunc.unikernel.hypervisor": encoded("qemu"),
            "com.urunc.unikernel.binary": encoded("/kernel"),
        });
        let found = recognise_file(file.to_string().as_bytes()).expect("a unikernel");
        assert_eq!(
            (found.kind.as_str(), found.monitor.as_str()),
            ("unikraft", "qemu")
        );
        let long = format!("{}{file}", " ".repeat(URUNC_FILE_BYTES_MAX as usize));
        for other in ["", "[]", "{}", &urunc("plain").to_string(), &long] {
            assert_eq!(recognise_file(other.as_bytes()), None);
        }
    }

    #[test]
    fn images_of_unikraft_are_recognised() {
        let image = json!({"org.unikraft.image.name": "nginx"});
        let found = recognised(image.clone(), json!({}), "fc", json!({})).expect("a unikernel");
        assert_eq!(found.to_string(), "a Unikraft unikernel for the monitor fc");
        let kernel = json!({"org.unikraft.kernel.image": "/unikraft/bin/kernel"});
        let found = recognised(json!({}), json!({}), "linux", kernel).expect("a unikernel");
        assert_eq!(
            (found.format, found.monitor.as_str()),
            (UnikernelFormat::Unikraft, "qemu")
        );
        assert_eq!(recognised(image, json!({}), "linux", json!({})), None);
    }
}
