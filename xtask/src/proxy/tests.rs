use super::*;
use serde_json::Value;

const RUN: &str = "6f9c2d1e-8a4b-4c57-9d10-2e3f4a5b6c7d";

/// Answers every request with what it was sent, as an emulator that has done what it was asked.
async fn echo() -> (String, Arc<Mutex<u32>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, served) = (listener.local_addr().unwrap().to_string(), Arc::new(Mutex::new(0)));
    let count = Arc::clone(&served);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let request = Request::read(&mut connection).await.unwrap().unwrap();
            *count.lock().unwrap() += 1;
            let text = String::from_utf8(request.body).unwrap();
            let _ = send(&mut connection, &reply::json(200, &text)).await;
        }
    });
    (address, served)
}

async fn ask(proxy: &Proxy, text: &str) -> String {
    let mut connection = TcpStream::connect(proxy.shared.here).await.unwrap();
    connection.write_all(text.as_bytes()).await.unwrap();
    let mut reply = String::new();
    let _ = connection.read_to_string(&mut reply).await;
    reply
}

fn call(run: &str, action: &str) -> String {
    let body = format!("Action={action}&UserName=u");
    format!(
        "POST / HTTP/1.1\r\nhost: h\r\nuser-agent: aws-sdk-rust/1 app/keywheel-{run}\r\nauthorization: \
         AWS4-HMAC-SHA256 Credential=K/20260105/us-east-1/iam/aws4_request, SignedHeaders=host\r\n\
         Connection: keep-alive\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn plan(proxy: &Proxy, plan: &Value) {
    let text = plan.to_string();
    let request = format!("POST /_proxy/plans HTTP/1.1\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    assert!(ask(proxy, &request).await.starts_with("HTTP/1.1 200"));
}

async fn told(proxy: &Proxy) -> Value {
    let reply = ask(proxy, &format!("GET /_proxy/plans?run={RUN} HTTP/1.1\r\n\r\n")).await;
    serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn each_kind_has_or_lacks_its_effect_and_spoils_its_reply() {
    let (upstream, served) = echo().await;
    let proxy = Proxy::start().await.unwrap();
    proxy.forward_to(&upstream).unwrap();
    let table = [
        ("refused", 0, "HTTP/1.1 403", "<Code>AccessDenied</Code>"),
        ("throttled", 0, "HTTP/1.1 400", "<Code>Throttling</Code>"),
        ("error_before", 0, "HTTP/1.1 500", "InternalFailure"),
        ("lost_before", 0, "", ""),
        ("lost_after", 1, "", ""),
        ("error_after", 1, "HTTP/1.1 500", "InternalFailure"),
        ("garbled_after", 1, "HTTP/1.1 200", "<A"),
        ("cut_after", 1, "HTTP/1.1 200", ""),
        ("late", 1, "HTTP/1.1 200", "UserName=u"),
        // This test is no Lambda: it is not killed, and its connection breaks.
        ("killed_before", 0, "", ""),
        ("killed_after", 1, "", ""),
    ];
    for (kind, effect, begins, contains) in table {
        plan(
            &proxy,
            &json!({ "run": RUN, "on": [{ "call": "iam:CreateAccessKey", "kind": kind, "times": 1 }] }),
        )
        .await;
        let before = *served.lock().unwrap();
        let reply = ask(&proxy, &call(RUN, "CreateAccessKey")).await;
        assert!(reply.starts_with(begins) && reply.contains(contains), "{kind}: {reply}");
        assert_eq!(reply.is_empty(), begins.is_empty(), "{kind}: {reply}");
        assert_eq!(*served.lock().unwrap() - before, effect, "{kind}");
        let whole = ask(&proxy, &call(RUN, "CreateAccessKey")).await;
        assert!(whole.ends_with("UserName=u"), "{kind} was to fall once: {whole}");
        let told = told(&proxy).await;
        assert_eq!((told["calls"].as_u64(), told["faults"][0]["kind"].as_str()), (Some(2), Some(kind)));
        assert_eq!(told["faults"][0]["killed"], Value::Null);
    }
}

#[tokio::test]
async fn a_fault_falls_on_its_own_run_its_number_and_its_name_only() {
    let (upstream, served) = echo().await;
    let proxy = Proxy::start().await.unwrap();
    proxy.forward_to(&upstream).unwrap();
    plan(
        &proxy,
        &json!({
            "run": RUN, "at": [{ "number": 1, "kind": "lost_before" }],
            "on": [{ "call": "iam:DeleteAccessKey", "kind": "lost_before" }],
        }),
    )
    .await;
    for (run, action, passes) in [
        (RUN, "ListAccessKeys", true),
        ("another-run", "DeleteAccessKey", true),
        (RUN, "ListAccessKeys", false),
        (RUN, "DeleteAccessKey", false),
        (RUN, "DeleteAccessKey", false),
        (RUN, "ListAccessKeys", true),
    ] {
        let before = *served.lock().unwrap();
        let reply = ask(&proxy, &call(run, action)).await;
        assert_eq!((*served.lock().unwrap() > before, !reply.is_empty()), (passes, passes), "{run} {action}");
    }
    assert_eq!(told(&proxy).await["calls"], 5);
}

#[test]
fn lots_are_the_same_for_the_same_seed_and_near_their_share() {
    let drawn = |seed: u64| -> Vec<Option<Kind>> {
        let planned = json!({
            "run": RUN, "seed": seed, "per_mille": 200, "kinds": ["lost_before", "lost_after", "late"],
        });
        let mut plan = Plan::new(serde_json::from_value(planned).unwrap());
        (0..2_000).map(|_| plan.strike(RUN, "iam:GetUser").map(|strike| strike.kind)).collect()
    };
    let first = drawn(7);
    assert_eq!(first, drawn(7));
    assert_ne!(first, drawn(8));
    let hits = first.iter().flatten().count();
    assert!((320..480).contains(&hits), "{hits} of 2000");
    for kind in [Kind::LostBefore, Kind::LostAfter, Kind::Late] {
        assert!(first.iter().flatten().filter(|hit| **hit == kind).count() > 60, "{kind:?}");
    }
}
