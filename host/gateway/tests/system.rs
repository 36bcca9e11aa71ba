//! The OpenFaaS API, the registry and the daemon's life over real HTTP.

mod support;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use spore_gateway::{Daemon, DaemonStartError};
use spore_sandbox::fake::{FakeFunction, FakeSandbox, response};
use spore_sandbox::{InstanceSpec, Root};
use support::{Fixture, config, deployment, digest, layer, manifest, program, static_program};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[tokio::test]
async fn deployed_function_is_echoed_as_it_was_sent() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    fixture.push("hello", &static_program()).await;
    let settings = json!({
        "image": format!("{}/hello:latest", fixture.address),
        "envVars": { "A": "1" },
        "labels": { "team": "red" },
        "annotations": { "note": "{\"json\": true}" },
        "limits": { "memory": "5Mi", "cpu": "100m" },
        "readOnlyRootFilesystem": true,
    });
    fixture.deploy(settings.clone()).await;
    let (status, one) = fixture.get("/system/function/hello").await;
    assert_eq!(status, StatusCode::OK);
    let mut one = parsed(&one);
    assert!(one["createdAt"].as_str().expect("text").ends_with('Z'));
    one.as_object_mut().expect("an object").remove("createdAt");
    let mut expected = settings;
    expected["name"] = json!("hello");
    expected["namespace"] = json!("openfaas-fn");
    expected["labels"]["faas_function"] = json!("hello");
    expected["isolation"] = json!("process");
    expected["sandbox"] = json!("unikernel");
    expected["protocol"] = json!("http");
    assert_eq!(one, expected);
    fixture.get("/function/hello").await;
    let (_, list) = fixture.get("/system/functions?namespace=openfaas-fn").await;
    let list = parsed(&list);
    assert_eq!(
        (&list[0]["invocationCount"], &list[0]["replicas"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(list[0]["availableReplicas"], 1);
}

#[tokio::test]
async fn unset_fields_are_absent_except_labels_and_annotations() {
    let fixture = Fixture::with_hello(FakeFunction::echo(), json!({ "envVars": {}, "secrets": [] })).await;
    let one = parsed(&fixture.get("/system/function/hello").await.1);
    let mut names: Vec<&String> = one.as_object().expect("an object").keys().collect();
    names.sort();
    assert_eq!(
        names,
        [
            "annotations",
            "createdAt",
            "image",
            "isolation",
            "labels",
            "name",
            "namespace",
            "protocol",
            "sandbox"
        ]
    );
    assert_eq!(
        (&one["annotations"], &one["labels"]),
        (&json!({}), &json!({ "faas_function": "hello" }))
    );
}

#[tokio::test]
async fn an_isolation_that_cannot_be_had_is_refused_at_the_deployment() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    fixture.push("hello", &static_program()).await;
    for isolation in ["vm", "jail"] {
        let asks = deployment(json!({ "annotations": { "dev.spore.isolation": isolation } }));
        let (status, _) = fixture.json(Method::POST, "/system/functions", &asks).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{isolation}");
    }
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_had_is_refused_at_the_deployment() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    fixture.push("hello", &static_program()).await;
    for (sandbox, says) in [
        ("docker", "unikernel, runc, crun, gvisor, microvm, foreign"),
        ("runc", "no sandbox `runc` here, only `unikernel`"),
    ] {
        let asks = deployment(json!({ "annotations": { "dev.spore.sandbox": sandbox } }));
        let (status, body) = fixture.json(Method::POST, "/system/functions", &asks).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{sandbox}");
        assert!(body.contains(says), "{body}");
    }
    let asks = deployment(json!({ "annotations": { "dev.spore.sandbox": "unikernel" } }));
    let (status, _) = fixture.json(Method::POST, "/system/functions", &asks).await;
    assert_eq!(status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn life_of_a_function_has_the_right_statuses() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    fixture.push("hello", &static_program()).await;
    let path = "/system/functions";
    let hello = deployment(json!({}));
    assert_eq!(
        fixture.json(Method::PUT, path, &hello).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        fixture.json(Method::POST, path, &hello).await.0,
        StatusCode::ACCEPTED
    );
    assert_eq!(
        fixture.json(Method::POST, path, &hello).await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(
        fixture.json(Method::PUT, path, &hello).await.0,
        StatusCode::ACCEPTED
    );
    let removal = json!({ "functionName": "hello", "namespace": "openfaas-fn" });
    assert_eq!(
        fixture.json(Method::DELETE, path, &removal).await.0,
        StatusCode::ACCEPTED
    );
    assert_eq!(
        fixture.json(Method::DELETE, path, &removal).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        fixture.get("/system/function/hello").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(fixture.get("/function/hello").await.0, StatusCode::NOT_FOUND);
    assert_eq!(fixture.get(path).await, (StatusCode::OK, "[]".to_owned()));
    assert_eq!(
        fixture.json(Method::POST, path, &hello).await.0,
        StatusCode::ACCEPTED,
        "the name is free again"
    );
}

#[tokio::test]
async fn bad_deployments_are_refused_with_what_to_do() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    fixture.push("hello", &static_program()).await;
    for (settings, hint) in [
        (json!({ "service": "Hello_World" }), "lower-case letters"),
        (json!({ "service": "" }), "cannot be the name"),
        (json!({ "image": "nobody:latest" }), "push it first"),
        (
            json!({ "image": "registry.example/hello:latest" }),
            "was not pushed to this daemon",
        ),
        (json!({ "image": "hello:LATEST:x" }), "NAME:TAG"),
        (json!({ "limits": { "memory": "lots" } }), "write it like 128Mi"),
        (
            json!({ "annotations": { "dev.spore.timeout": "soon" } }),
            "write it like 30s",
        ),
        (json!({ "secrets": ["key"] }), "does not exist"),
        (json!({ "namespace": "other" }), "does not exist"),
    ] {
        let answer = fixture
            .json(Method::POST, "/system/functions", &deployment(settings))
            .await;
        assert!(
            answer.0 == StatusCode::BAD_REQUEST && answer.1.contains(hint),
            "{hint}: {answer:?}"
        );
    }
    for body in ["", "{", "[]", "{\"service\": 7}"] {
        let (answer, text) = fixture.call(Method::POST, "/system/functions", body).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{text}");
    }
    let long = " ".repeat(2 << 20);
    let (answer, _) = fixture.call(Method::POST, "/system/functions", long).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(fixture.get("/system/functions").await.1, "[]");
}

#[tokio::test]
async fn programs_that_cannot_run_are_refused_at_deploy_time() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    let dynamic = program(3, b"/lib64/ld-linux-x86-64.so.2\0");
    for (content, hint) in [
        (
            dynamic,
            "`/function` cannot run: it needs /lib64/ld-linux-x86-64.so.2, which the image does not have: add it",
        ),
        (
            b"#!/bin/sh\necho hello\n".to_vec(),
            "`/function` cannot run: it needs /bin/sh, which the image does not have",
        ),
    ] {
        fixture.push("hello", &content).await;
        let answer = fixture
            .json(Method::POST, "/system/functions", &deployment(json!({})))
            .await;
        assert!(
            answer.0 == StatusCode::BAD_REQUEST && answer.1.contains(hint),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn instance_gets_what_image_and_deployment_say() {
    let sandbox = FakeSandbox::new(|spec| {
        let text = format!(
            "{:?} {:?} {} {}",
            spec.arguments, spec.environment, spec.port, spec.memory_bytes
        );
        let program = std::fs::read(spec.root.path()).expect("the program");
        FakeFunction::http(move |_, _| {
            let text = format!("{text} {}", program.len());
            async move { response(200, text) }
        })
    });
    let fixture = Fixture::start_with(sandbox, |_| {}).await;
    let digest = fixture.push("hello", &static_program()).await;
    let image = format!("hello@{digest}");
    let limits = json!({ "memory": "64Mi" });
    fixture
        .deploy(json!({ "image": image, "envVars": { "COLOUR": "red", "X": "y" }, "limits": limits }))
        .await;
    let (_, text) = fixture.get("/function/hello").await;
    let environment = r#"[("COLOUR", "red"), ("HOME", "/"), ("PORT", "9000"), ("OPENFAAS_NAME", "hello"), ("OPENFAAS_NAMESPACE", "openfaas-fn"), ("X", "y")]"#;
    let expected = format!(
        r#"["/function", "--fast"] {environment} 9000 67108864 {}"#,
        static_program().len()
    );
    assert_eq!(text, expected);
}

/// Needs mkfs.erofs, which `scripts/test` installs.
#[tokio::test]
async fn image_that_is_more_than_a_program_becomes_a_root_file_system() {
    let sandbox = FakeSandbox::new(|spec| {
        let kind = match &spec.root {
            Root::Program(_) => "program",
            Root::FileSystem(_) | Root::Layered { .. } => "file system",
        };
        let path = spec.environment.iter().find(|(name, _)| name == "PATH");
        let text = format!("{kind} {} {path:?}", spec.working_directory);
        FakeFunction::http(move |_, _| {
            let text = text.clone();
            async move { response(200, text) }
        })
    });
    let mut fixture = Fixture::start_with(sandbox, |_| {}).await;
    let dynamic = program(3, b"/lib64/ld.so\0");
    let files = [("function", &*dynamic), ("lib64/ld.so", b"a loader")];
    let digest = fixture.push_layer("hello", layer(&files)).await;
    fixture.deploy(json!({})).await;
    let expected =
        "file system / Some((\"PATH\", \"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"))";
    assert_eq!(fixture.get("/function/hello").await.1, expected);
    let folder = fixture.data.path().join("derived");
    let image = folder
        .join(digest.trim_start_matches("sha256:"))
        .join("root.erofs");
    let bytes = std::fs::read(&image).expect("it is there");
    assert_eq!(bytes[1024..1028], 0xe0f5_e1e2_u32.to_le_bytes());
    let uploads = std::fs::read_dir(fixture.data.path().join("uploads")).expect("reads");
    assert_eq!(uploads.count(), 0, "nothing of the unpacked image is left");
    // Damage is seen at the next start.
    std::fs::remove_file(&image).expect("it is there");
    std::fs::write(&image, &bytes[..bytes.len() - 4096]).expect("writes");
    fixture.restart().await;
    assert_eq!(fixture.get("/function/hello").await.1, expected);
    assert!(
        std::fs::read(&image).expect("it is there") == bytes,
        "the same layers give the same image"
    );
}

#[tokio::test]
async fn hostile_layers_are_refused_and_leave_nothing() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    let file = |path: &str, kind: tar::EntryType, link: &str, bytes: u64| {
        let mut header = tar::Header::new_gnu();
        let gnu = header.as_gnu_mut().expect("a GNU header");
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(bytes);
        header.set_cksum();
        [header.as_bytes().as_slice(), &[0; 1024]].concat()
    };
    let outside = tempfile::tempdir().expect("a temporary folder");
    let outside_path = outside.path().to_str().expect("text");
    for (layer, hint) in [
        (
            file("../up", tar::EntryType::Regular, "", 0),
            "`../up`, which leads out of the image",
        ),
        (
            file("h", tar::EntryType::Link, "../../etc/passwd", 0),
            "leads out of the image",
        ),
        (
            file("huge", tar::EntryType::Regular, "", 1 << 40),
            "the image holds more than",
        ),
        (file("s", tar::EntryType::GNUSparse, "", 0), "a sparse file"),
        (
            [
                &file("d", tar::EntryType::Symlink, outside_path, 0)[..512],
                &file("d/x", tar::EntryType::Regular, "", 0),
            ]
            .concat(),
            "cannot be deployed",
        ),
    ] {
        fixture.push_layer("hello", layer).await;
        let (status, text) = fixture
            .json(Method::POST, "/system/functions", &deployment(json!({})))
            .await;
        assert!(status == StatusCode::BAD_REQUEST && text.contains(hint), "{text}");
    }
    assert_eq!(std::fs::read_dir(outside.path()).expect("reads").count(), 0);
    for folder in ["uploads", "derived"] {
        let left = std::fs::read_dir(fixture.data.path().join(folder)).expect("reads");
        assert_eq!(left.count(), 0, "{folder}");
    }
}

#[tokio::test]
async fn functions_and_images_survive_a_restart() {
    let mut fixture = Fixture::with_hello(FakeFunction::echo(), json!({ "labels": { "a": "b" } })).await;
    let before = parsed(&fixture.get("/system/function/hello").await.1);
    // The tag moves; the function stays with the image that it was deployed with.
    fixture.push("hello", b"not a program").await;
    fixture.restart().await;
    assert_eq!(parsed(&fixture.get("/system/function/hello").await.1), before);
    let (answer, body) = fixture.call(Method::POST, "/function/hello", "again").await;
    assert_eq!((answer.status(), body.as_str()), (StatusCode::OK, "again"));
}

#[tokio::test]
async fn the_sandbox_is_told_what_is_deployed() {
    let mut fixture = Fixture::with_hello(FakeFunction::echo(), json!({})).await;
    let told = |fixture: &Fixture| {
        let mut told: Vec<_> = fixture.sandbox.deployed().into_iter().collect();
        told.sort_by(|a, b| a.function.cmp(&b.function));
        let plain = |spec: InstanceSpec| {
            assert!(spec.root_digest.is_some() && spec.instance.is_empty());
            (spec.function, spec.memory_bytes >> 20)
        };
        told.into_iter().map(plain).collect::<Vec<_>>()
    };
    let names =
        |list: &[(&str, u64)]| -> Vec<_> { list.iter().map(|&(name, mib)| (name.to_owned(), mib)).collect() };
    assert_eq!(told(&fixture), names(&[("hello", 128)]));
    let other = json!({ "service": "other", "image": "hello", "limits": { "memory": "64Mi" } });
    fixture.json(Method::POST, "/system/functions", &other).await;
    assert_eq!(told(&fixture), names(&[("hello", 128), ("other", 64)]));
    let again = deployment(json!({ "limits": { "memory": "32Mi" } }));
    fixture.json(Method::PUT, "/system/functions", &again).await;
    assert_eq!(told(&fixture), names(&[("hello", 32), ("other", 64)]));
    fixture.restart().await;
    assert_eq!(told(&fixture), names(&[("hello", 32), ("other", 64)]));
    let name = json!({ "functionName": "other" });
    fixture.json(Method::DELETE, "/system/functions", &name).await;
    assert_eq!(told(&fixture), names(&[("hello", 32)]));
}

#[tokio::test]
async fn function_whose_image_is_damaged_is_left_out_and_can_be_removed_or_deployed_again() {
    let mut fixture = Fixture::with_hello(FakeFunction::echo(), json!({})).await;
    fixture.push("other", &program(1, b"another one")).await;
    let other = json!({ "service": "other", "image": "other" });
    let (status, body) = fixture.json(Method::POST, "/system/functions", &other).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let manifest = fixture.push("hello", &static_program()).await;
    let blob = fixture
        .data
        .path()
        .join("blobs/sha256")
        .join(manifest.trim_start_matches("sha256:"));
    std::fs::write(&blob, "damaged").expect("writes");
    fixture.restart().await;
    let list = parsed(&fixture.get("/system/functions").await.1);
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(fixture.get("/function/other").await.0, StatusCode::OK);
    assert_eq!(fixture.get("/function/hello").await.0, StatusCode::NOT_FOUND);
    // The next start finds nothing of it any more.
    let name = json!({ "functionName": "hello" });
    let (status, body) = fixture.json(Method::DELETE, "/system/functions", &name).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let (status, _) = fixture.json(Method::DELETE, "/system/functions", &name).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    fixture.push("hello", &static_program()).await;
    fixture.deploy(json!({})).await;
    assert_eq!(fixture.get("/function/hello").await.0, StatusCode::OK);
}

#[tokio::test]
async fn damaged_layer_is_removed_so_that_a_push_brings_it_back() {
    let mut fixture = Fixture::with_hello(FakeFunction::echo(), json!({})).await;
    let digest = digest(&layer(&[("function", &static_program())]));
    let path = format!("/v2/hello/blobs/{digest}");
    let blob = fixture.data.path().join("blobs/sha256");
    let blob = blob.join(digest.trim_start_matches("sha256:"));
    std::fs::write(&blob, "damaged").expect("writes");
    fixture.restart().await;
    assert_eq!(
        fixture.get("/function/hello").await.0,
        StatusCode::OK,
        "nobody needs it as long as the derived program is there"
    );
    std::fs::remove_dir_all(fixture.data.path().join("derived")).expect("it is there");
    fixture.restart().await;
    assert_eq!(fixture.get("/function/hello").await.0, StatusCode::NOT_FOUND);
    let (answer, _) = fixture.call(Method::HEAD, &path, "").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    fixture.push("hello", &static_program()).await;
    fixture.deploy(json!({})).await;
    assert_eq!(fixture.get("/function/hello").await.0, StatusCode::OK);
}

#[tokio::test]
async fn damaged_blob_is_not_said_to_be_there() {
    let fixture = Fixture::with_hello(FakeFunction::echo(), json!({})).await;
    let digest = digest(&layer(&[("function", &static_program())]));
    let path = format!("/v2/hello/blobs/{digest}");
    let (answer, _) = fixture.call(Method::HEAD, &path, "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    let blob = fixture.data.path().join("blobs/sha256");
    let blob = blob.join(digest.trim_start_matches("sha256:"));
    std::fs::write(&blob, "damaged").expect("writes");
    let (answer, _) = fixture.call(Method::HEAD, &path, "").await;
    assert_eq!(
        answer.status(),
        StatusCode::NOT_FOUND,
        "so that it is pushed again"
    );
    assert!(!blob.exists());
}

#[tokio::test]
async fn derived_program_that_is_damaged_is_derived_again() {
    let mut fixture = Fixture::with_hello(FakeFunction::echo(), json!({})).await;
    let digest = fixture.push("hello", &static_program()).await;
    let folder = fixture
        .data
        .path()
        .join("derived")
        .join(digest.trim_start_matches("sha256:"));
    std::fs::remove_file(folder.join("program")).expect("it is there");
    std::fs::write(folder.join("program"), "damaged").expect("writes");
    fixture.restart().await;
    assert_eq!(fixture.get("/function/hello").await.0, StatusCode::OK);
    let program = std::fs::read(folder.join("program")).expect("reads");
    assert_eq!(program, static_program());
}

#[tokio::test]
async fn second_daemon_on_the_same_data_is_refused() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    let error = Daemon::start(config(&fixture.data), Arc::new(fixture.sandbox.clone()))
        .await
        .map(drop);
    let error = error.expect_err("the directory is in use");
    assert!(
        matches!(
            &error,
            DaemonStartError::Store(spore_store::OpenError::InUse { .. })
        ),
        "{error:?}"
    );
    let mut taken = config(&tempfile::tempdir().expect("a temporary folder"));
    taken.listen = fixture.address;
    let error = Daemon::start(taken, Arc::new(fixture.sandbox.clone()))
        .await
        .map(drop);
    assert!(matches!(error, Err(DaemonStartError::Listen { .. })));
}

#[tokio::test]
async fn shutdown_lets_invocations_end_and_stops_all_instances() {
    let slow = FakeFunction::http(|_, _| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        response(200, "done")
    });
    let mut fixture = Fixture::with_hello(slow, json!({ "labels": { "com.openfaas.scale.min": "2" } })).await;
    let daemon = fixture.daemon.take().expect("a running daemon");
    let fixture = Arc::new(fixture);
    let invocation = tokio::spawn({
        let fixture = fixture.clone();
        async move { fixture.get("/function/hello").await }
    });
    fixture
        .until("the invocation", |fixture| fixture.sandbox.connections() == 1)
        .await;
    daemon.shutdown().await;
    assert_eq!(
        invocation.await.expect("no panic"),
        (StatusCode::OK, "done".to_owned())
    );
    assert!(fixture.sandbox.live().is_empty());
}

#[tokio::test]
async fn health_info_and_wrong_addresses() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    assert_eq!(fixture.get("/healthz").await.0, StatusCode::OK);
    let info = parsed(&fixture.get("/system/info").await.1);
    assert_eq!(
        (&info["provider"]["provider"], &info["provider"]["orchestration"]),
        (&json!("spore"), &json!("unikernel"))
    );
    for version in [&info["version"], &info["provider"]["version"]] {
        assert!(version["release"].as_str().is_some_and(|text| !text.is_empty()));
        assert!(version["sha"].as_str().is_some_and(|text| !text.is_empty()));
    }
    assert_eq!(fixture.get("/nowhere").await.0, StatusCode::NOT_FOUND);
    let (answer, _) = fixture.call(Method::PATCH, "/system/functions", "").await;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers()["allow"], "GET, POST, PUT, DELETE");
}

/// A function that prints its path.
fn printing() -> FakeFunction {
    FakeFunction::http(|request, control| async move {
        control.print(request.uri().path());
        response(200, "")
    })
}

#[tokio::test]
async fn logs_outlive_instances_and_can_be_narrowed() {
    let settings = json!({ "annotations": { "dev.spore.idle-timeout": "0" } });
    let fixture = Fixture::with_hello(printing(), settings).await;
    for number in 0..4 {
        fixture.get(&format!("/function/hello/{number}")).await;
    }
    fixture
        .until("the end of the instances", |fixture| {
            fixture.sandbox.live().is_empty()
        })
        .await;
    let texts = |body: &str| -> Vec<String> {
        body.lines()
            .map(|line| parsed(line)["text"].as_str().expect("text").to_owned())
            .collect()
    };
    // The lines reach their file a moment after they were written.
    let mut all = String::new();
    for _ in 0..200 {
        all = fixture.get("/system/logs?name=hello&follow=false").await.1;
        if all.lines().count() == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(texts(&all), ["/0", "/1", "/2", "/3"]);
    let first = parsed(all.lines().next().expect("a line"));
    assert_eq!(
        (&first["name"], &first["namespace"]),
        (&json!("hello"), &json!("openfaas-fn"))
    );
    let (_, tail) = fixture.get("/system/logs?name=hello&tail=2").await;
    assert_eq!(texts(&tail), ["/2", "/3"]);
    let since = parsed(all.lines().nth(1).expect("a line"))["timestamp"]
        .as_str()
        .expect("text")
        .to_owned();
    assert_eq!(
        texts(
            &fixture
                .get(&format!("/system/logs?name=hello&since={since}"))
                .await
                .1
        ),
        ["/1", "/2", "/3"]
    );
    let instance = first["instance"].as_str().expect("text");
    assert_eq!(
        texts(
            &fixture
                .get(&format!("/system/logs?name=hello&instance={instance}"))
                .await
                .1
        ),
        ["/0"]
    );
    assert_eq!(
        fixture.get("/system/logs?name=nobody").await.0,
        StatusCode::NOT_FOUND
    );
    for bad in ["tail=x", "since=yesterday"] {
        let status = fixture.get(&format!("/system/logs?name=hello&{bad}")).await.0;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[tokio::test]
async fn followed_log_brings_new_lines_until_the_function_is_removed() {
    let fixture = Fixture::with_hello(printing(), json!({})).await;
    let request = http::Request::get("/system/logs?name=hello&follow=1&tail=-1").header("host", "x");
    let request = request
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .expect("a request");
    let answer = fixture.send(request).await;
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let mut body = answer.into_body();
    for number in 0..3 {
        fixture.get(&format!("/function/hello/{number}")).await;
        let frame = body
            .frame()
            .await
            .expect("a frame")
            .expect("no error")
            .into_data()
            .expect("data");
        let line = parsed(std::str::from_utf8(&frame).expect("text"));
        assert_eq!(line["text"], format!("/{number}"));
    }
    let removal = json!({ "functionName": "hello" });
    assert_eq!(
        fixture
            .json(Method::DELETE, "/system/functions", &removal)
            .await
            .0,
        StatusCode::ACCEPTED
    );
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn pushed_image_can_be_read_back() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    let digest = fixture.push("team/hello", &static_program()).await;
    let (by_tag, text) = fixture
        .call(Method::GET, "/v2/team/hello/manifests/latest", "")
        .await;
    assert_eq!(by_tag.headers()["docker-content-digest"], digest.as_str());
    let (_, by_digest) = fixture
        .call(Method::GET, &format!("/v2/team/hello/manifests/{digest}"), "")
        .await;
    assert_eq!(by_digest, text);
    let layer = parsed(&text)["layers"][0].clone();
    let path = format!("/v2/team/hello/blobs/{}", layer["digest"].as_str().expect("text"));
    let (head, _) = fixture.call(Method::HEAD, &path, "").await;
    assert_eq!(
        head.headers()["content-length"],
        layer["size"].to_string().as_str()
    );
    let request = http::Request::get(&path)
        .header("host", "x")
        .body(http_body_util::Empty::<bytes::Bytes>::new());
    let blob = fixture
        .send(request.expect("a request"))
        .await
        .into_body()
        .collect()
        .await
        .expect("whole")
        .to_bytes();
    assert_eq!(support::digest(&blob), layer["digest"]);
    assert_eq!(
        parsed(&fixture.get("/v2/team/hello/tags/list").await.1)["tags"],
        json!(["latest"])
    );
    let (_, missing) = fixture.get("/v2/team/hello/manifests/v2").await;
    assert_eq!(parsed(&missing)["errors"][0]["code"], "MANIFEST_UNKNOWN");
    assert_eq!(fixture.get("/v2/").await.0, StatusCode::OK);
}

#[tokio::test]
async fn chunked_uploads_keep_their_order_and_their_digest() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    let (begun, _) = fixture.call(Method::POST, "/v2/hello/blobs/uploads/", "").await;
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let location = begun.headers()["location"].to_str().expect("text").to_owned();
    let piece = |range: &str, content: &'static str| {
        let request = http::Request::patch(&location)
            .header("host", "x")
            .header("content-range", range);
        fixture.send(
            request
                .body(http_body_util::Full::new(bytes::Bytes::from(content)))
                .expect("a request"),
        )
    };
    assert_eq!(piece("0-4", "hello").await.headers()["range"], "0-4");
    assert_eq!(
        piece("9-13", "wrong").await.status(),
        StatusCode::RANGE_NOT_SATISFIABLE
    );
    assert_eq!(piece("5-10", " world").await.status(), StatusCode::ACCEPTED);
    let wrong = format!("{location}?digest={}", digest(b"something else"));
    let (status, _) = fixture.call(Method::GET, &location, "").await;
    assert_eq!(
        (status.status(), &status.headers()["range"]),
        (StatusCode::NO_CONTENT, &"0-10".parse().expect("ok"))
    );
    let right = format!(
        "{location}?digest={}",
        digest(b"hello world!").replace(':', "%3A")
    );
    let (stored, body) = fixture.call(Method::PUT, &right, "!").await;
    assert_eq!(stored.status(), StatusCode::CREATED, "{body}");
    assert_eq!(
        fixture
            .get(&format!("/v2/hello/blobs/{}", digest(b"hello world!")))
            .await
            .1,
        "hello world!"
    );
    assert_eq!(
        fixture.call(Method::PUT, &wrong, "").await.0.status(),
        StatusCode::NOT_FOUND,
        "it is finished"
    );
    let whole = format!("/v2/hello/blobs/uploads/?digest={}", digest(b"x"));
    assert_eq!(
        fixture.call(Method::POST, &whole, "y").await.0.status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        fixture.call(Method::POST, &whole, "x").await.0.status(),
        StatusCode::CREATED
    );
    let mount = format!("/v2/other/blobs/uploads/?mount={}&from=hello", digest(b"x"));
    assert_eq!(
        fixture.call(Method::POST, &mount, "").await.0.status(),
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn bad_pushes_are_refused() {
    let fixture = Fixture::start(FakeFunction::echo()).await;
    let incomplete = manifest(b"{}", &layer(&[("function", b"x")])).to_string();
    for (method, path, body, status, code) in [
        (
            Method::PUT,
            "/v2/hello/manifests/latest",
            "{}",
            400,
            "MANIFEST_INVALID",
        ),
        (
            Method::PUT,
            "/v2/hello/manifests/latest",
            incomplete.as_str(),
            404,
            "MANIFEST_BLOB_UNKNOWN",
        ),
        (
            Method::PUT,
            "/v2/hello/manifests/-",
            "{}",
            400,
            "MANIFEST_INVALID",
        ),
        (Method::POST, "/v2/../blobs/uploads/", "", 400, "NAME_INVALID"),
        (
            Method::GET,
            "/v2/hello/blobs/sha256:../../etc/passwd",
            "",
            400,
            "DIGEST_INVALID",
        ),
        (
            Method::GET,
            "/v2/hello/blobs/sha256:12",
            "",
            400,
            "DIGEST_INVALID",
        ),
        (
            Method::PATCH,
            "/v2/hello/blobs/uploads/7",
            "",
            404,
            "BLOB_UPLOAD_UNKNOWN",
        ),
    ] {
        let (answer, text) = fixture.call(method, path, body.to_owned()).await;
        assert_eq!(answer.status().as_u16(), status, "{path}: {text}");
        assert_eq!(parsed(&text)["errors"][0]["code"], code, "{path}: {text}");
    }
}
