//! The fake does what AWS does in the places where the difference would hide a fault of ours.

use std::time::Duration;

use aws_sdk_iam::error::ProvideErrorMetadata;
use keywheel::RunId;
use support::fake::Maker;
use support::faults::{Fault, Kind, Plan};
use support::world::{SECRET, USER, World};

fn iam(world: &World) -> aws_sdk_iam::Client {
    aws_sdk_iam::Client::new(&world.fake.config_of("somebody"))
}

fn store(world: &World) -> aws_sdk_secretsmanager::Client {
    aws_sdk_secretsmanager::Client::new(&world.fake.config_of("somebody"))
}

fn sts(world: &World, id: &str, secret: &str) -> aws_sdk_sts::Client {
    let credentials = aws_sdk_sts::config::Credentials::new(id, secret, None, None, "test");
    let config = world.fake.config_of("somebody");
    let config = aws_sdk_sts::config::Builder::from(&config).credentials_provider(credentials).build();
    aws_sdk_sts::Client::from_conf(config)
}

fn count(world: &World) -> usize {
    world.fake.call_names().iter().filter(|name| *name == "iam:CreateAccessKey").count()
}

#[tokio::test(start_paused = true)]
async fn with_the_sdks_retries_a_lost_reply_makes_more_keys_than_one() {
    // The reason why CreateKey switches them off: this is what happens otherwise.
    let world = World::without_value();
    world.fake.state().options.limit_races = true;
    world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", Kind::LostAfter).for_good()]);
    iam(&world).create_access_key().user_name(USER).send().await.unwrap_err();
    assert_eq!((count(&world), world.keys().len()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_third_key_is_refused_unless_calls_race() {
    let world = World::new();
    let iam = iam(&world);
    iam.create_access_key().user_name(USER).send().await.unwrap();
    let error = iam.create_access_key().user_name(USER).send().await.unwrap_err();
    assert_eq!(error.code(), Some("LimitExceeded"));
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 409);
    world.fake.state().options.limit_races = true;
    iam.create_access_key().user_name(USER).send().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pair_is_accepted_only_whole_and_only_when_it_is_known() {
    let world = World::new();
    let (id, secret) = {
        let mut state = world.fake.state();
        state.options.valid_after = Duration::from_secs(8);
        state.options.dies_after = Duration::from_secs(4);
        let id = state.add_key(USER, Maker::Owner);
        (id.clone(), state.key(&id).unwrap().1.secret.clone())
    };
    let code = async |id: &str, secret: &str| {
        let reply = sts(&world, id, secret).get_caller_identity().send().await;
        reply.err().and_then(|error| error.code().map(str::to_owned)).unwrap_or_default()
    };
    assert_eq!(code(&id, &secret).await, "InvalidClientTokenId");
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(code(&id, &secret).await, "");
    assert_eq!(code(&id, &secret.to_uppercase()).await, "SignatureDoesNotMatch");
    {
        let mut state = world.fake.state();
        let now = state.now();
        state.key_mut(&id).changes.push((now, false));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(code(&id, &secret).await, "", "a dead key works for a while");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(code(&id, &secret).await, "InvalidClientTokenId");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_written_once() {
    let world = World::new();
    let put = async |text: &str, token: &RunId| {
        let call = store(&world).put_secret_value().secret_id(SECRET).client_request_token(token.to_string());
        let reply = call.secret_string(text).version_stages("AWSPENDING").send().await;
        reply.err().and_then(|error| error.code().map(str::to_owned)).unwrap_or_default()
    };
    let (first, second) = (RunId::random(), RunId::random());
    assert_eq!(put("{}", &first).await, "");
    assert_eq!(put("{}", &second).await, "");
    // A repeat changes nothing, not even the label that has moved on.
    assert_eq!(put("{}", &first).await, "");
    assert_eq!(world.labelled("AWSPENDING").unwrap().id, second.to_string());
    assert_eq!(put("[]", &first).await, "ResourceExistsException");
}

#[tokio::test(start_paused = true)]
async fn the_first_version_is_current_whatever_its_labels() {
    let world = World::without_value();
    let token = RunId::random().to_string();
    let call = store(&world).put_secret_value().secret_id(SECRET).client_request_token(&token);
    call.secret_string("{}").version_stages("AWSPENDING").send().await.unwrap();
    assert_eq!(world.labelled("AWSCURRENT").unwrap().id, token);
    assert_eq!(world.labelled("AWSPENDING").unwrap().id, token);
}

#[tokio::test(start_paused = true)]
async fn labels_move_by_compare_and_swap() {
    let world = World::new();
    let first = world.labelled("AWSCURRENT").unwrap().id;
    let second = {
        let mut state = world.fake.state();
        let text = state.secret(SECRET).current().unwrap().to_string();
        state.put_current(SECRET, &text)
    };
    let swap = async |from: Option<&str>, to: &str| {
        let call = store(&world).update_secret_version_stage().secret_id(SECRET).version_stage("AWSCURRENT");
        let reply =
            call.set_remove_from_version_id(from.map(str::to_owned)).move_to_version_id(to).send().await;
        reply.err().and_then(|error| error.code().map(str::to_owned)).unwrap_or_default()
    };
    assert_eq!(swap(None, &first).await, "InvalidParameterException");
    assert_eq!(swap(Some(&first), &second).await, "InvalidParameterException");
    assert_eq!(
        swap(Some(&second), "00000000-0000-0000-0000-000000000000").await,
        "ResourceNotFoundException"
    );
    assert_eq!(swap(Some(&second), &first).await, "");
    assert_eq!(world.labelled("AWSPREVIOUS").unwrap().id, second);
    // The very same call again is refused: it was done.
    assert_eq!(swap(Some(&second), &first).await, "InvalidParameterException");
}

#[tokio::test(start_paused = true)]
async fn last_use_is_one_record_a_quarter_of_an_hour_and_late() {
    let world = World::new();
    let key = world.fake.state().add_key(USER, Maker::Owner);
    let started = world.fake.state().now();
    world.fake.state().options.last_used_lag = Duration::from_hours(4);
    world.fake.state().keep_using(&key, "s3", Duration::from_mins(1), Duration::from_mins(10));
    let last = async || {
        let reply = iam(&world).get_access_key_last_used().access_key_id(&key).send().await.unwrap();
        let used = reply.access_key_last_used.unwrap();
        (used.last_used_date.map(|at| at.secs()), used.service_name)
    };
    assert_eq!(last().await, (None, "N/A".to_owned()));
    tokio::time::sleep(Duration::from_hours(5)).await;
    // Ten uses within ten minutes; the first of their span is all that is noted.
    assert_eq!(last().await, (Some(started.as_second()), "s3".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_broken_promise_is_noticed() {
    let world = World::new();
    let (key, stranger) = (world.current_key(), world.fake.state().add_key(USER, Maker::Stranger));
    let iam = iam(&world);
    // One call before, so that the watch has seen a working key.
    iam.get_user().user_name(USER).send().await.unwrap();
    for id in [&key, &stranger] {
        iam.delete_access_key().user_name(USER).access_key_id(id).send().await.unwrap();
    }
    let broken = std::mem::take(&mut world.fake.state().violations).join("\n");
    for promise in [
        "P1: iam:DeleteAccessKey on the key that AWSCURRENT names",
        "P2: iam:DeleteAccessKey on a stranger's key",
        "P2: an Active key was deleted",
        "which is not Active",
    ] {
        assert!(broken.contains(promise), "{promise} is not in {broken}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_is_read_in_its_region_follows_late_and_takes_no_write() {
    let world = World::new();
    let (region, primary) = (world.other_region(), world.fake.state().secret(SECRET).arn.clone());
    world.fake.state().replicate(SECRET, &region, Duration::from_mins(5));
    let here = store(&world);
    let config = keywheel::aws::in_region(&world.fake.config_of("somebody"), &region);
    let there = aws_sdk_secretsmanager::Client::new(&config);
    // A secret is where its ARN says; its name is known in both regions.
    let error = there.describe_secret().secret_id(&primary).send().await.unwrap_err();
    assert_eq!(error.code(), Some("ResourceNotFoundException"));
    let copy = there.describe_secret().secret_id(SECRET).send().await.unwrap();
    assert_eq!(copy.primary_region(), Some(world.fake.state().region.as_str()));
    assert_ne!(copy.arn(), Some(primary.as_str()));
    let error = there.put_secret_value().secret_id(SECRET).secret_string("{}").send().await.unwrap_err();
    assert!(error.message().unwrap().contains("replica"), "{error:?}");
    // A change arrives there later, and the primary says so.
    let status = async || {
        let told = here.describe_secret().secret_id(SECRET).send().await.unwrap();
        told.replication_status()[0].status().unwrap().as_str().to_owned()
    };
    assert_eq!(status().await, "InSync");
    let text = world.fake.state().secret(SECRET).current().unwrap().to_string();
    let version = world.fake.state().put_current(SECRET, &text);
    let named = async || {
        let value = there.get_secret_value().secret_id(SECRET).send().await.unwrap();
        value.version_id().unwrap().to_owned()
    };
    assert_ne!(named().await, version);
    assert_eq!(status().await, "InProgress");
    world.fake.wait(Duration::from_mins(5)).await;
    assert_eq!((named().await, status().await), (version, "InSync".to_owned()));
}
