//! The documents that a server hands out say what the code does.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use serde_json::Value;
use support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_cover_every_route_and_every_frame() {
    let world = World::new(1).await;
    let (status, api) = world.call(0, "GET", "/openapi.json", "", None).await;
    assert_eq!(status, 200);
    let paths: Vec<&String> = api["paths"].as_object().unwrap().keys().collect();
    for path in ["/v1/sign-in", "/v1/servers", "/v1/health", "/v1/users/batch", "/v1/rooms/{id}/entries"] {
        assert!(paths.iter().any(|p| *p == path), "{path} is not in {paths:?}");
    }
    assert!(api["components"]["schemas"]["Entry"].is_object());

    let url = format!("http://{}/docs/frames", world.addresses[0]);
    let page = world.http.get(url).send().await.unwrap().text().await.unwrap();
    for name in [
        "hello",
        "join",
        "leave",
        "post",
        "welcome",
        "joined",
        "left",
        "ack",
        "refused",
        "entry",
        "waiting",
        "ready",
        "move",
        "queued",
        "come_back",
        "late",
        "tail_returned",
        "removal",
        "replacement",
        "room_change",
        "bad_request",
        "not_signed_in",
        "forbidden",
        "not_found",
        "conflict",
        "too_large",
        "overloaded",
        "unavailable",
        "not_active",
        "internal",
        "4001",
        "4002",
        "4003",
        "4004",
        "4005",
    ] {
        assert!(page.contains(&format!("<code>{name}</code>")), "{name} is not on the page");
    }
    // Every example on the page is a frame.
    let examples = page.split("<pre>").skip(1).flat_map(|part| part.split("</pre>").next().unwrap().lines());
    let mut frames = 0;
    for example in examples {
        let known = serde_json::from_str::<wire::chat::ServerFrame>(example).is_ok()
            || serde_json::from_str::<wire::chat::ClientFrame>(&example.replace("9f2c…", "9f2c")).is_ok();
        assert!(known, "{example}");
        frames += 1;
    }
    assert!(frames > 10);

    for (method, path, expect) in [("GET", "/nowhere", 404), ("DELETE", "/v1/rooms", 405)] {
        let (status, body) = world.call(0, method, path, "", None).await;
        assert_eq!(status, expect);
        assert!(matches!(&body["message"], Value::String(m) if m.contains("openapi")), "{body}");
    }
}
