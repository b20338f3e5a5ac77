//! Looks for secrets everywhere they must not be.

use std::path::Path;

use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::error::{Explain, Result};

/// A text to look through, and its name.
pub(crate) struct Place {
    /// Where it is from.
    pub(crate) name: String,
    /// All of it.
    pub(crate) text: String,
}

impl Place {
    /// A text by its name.
    pub(crate) fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// A file; one that cannot be read is an error, not an empty text.
    pub(crate) fn file(name: &str, path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).explain(name)?;
        Ok(Self::new(name, String::from_utf8_lossy(&bytes)))
    }
}

/// The Lambdas' logs, a text for each group.
pub(crate) async fn logs(cloud: &Cloud) -> Result<Vec<Place>> {
    let prefix = json!({ "logGroupNamePrefix": "/aws/lambda/" });
    let groups = pages(cloud, "DescribeLogGroups", prefix, "logGroups").await?;
    let mut places = Vec::new();
    for group in groups.iter().filter_map(|group| group.get("logGroupName").and_then(Value::as_str)) {
        let events = pages(cloud, "FilterLogEvents", json!({ "logGroupName": group }), "events").await?;
        let lines = events.iter().filter_map(|event| event.get("message").and_then(Value::as_str));
        places.push(Place::new(format!("the log {group}"), lines.collect::<Vec<_>>().join("\n")));
    }
    Ok(places)
}

async fn pages(cloud: &Cloud, action: &str, mut input: Value, rows: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    loop {
        let reply = cloud.http.call("logs", &format!("Logs_20140328.{action}"), &input).await?;
        let mut reply: Value = serde_json::from_str(&reply).explain(action)?;
        if let Some(Value::Array(page)) = reply.get_mut(rows).map(Value::take) {
            found.extend(page);
        }
        match reply.get_mut("nextToken").map(Value::take) {
            Some(Value::String(token)) => input["nextToken"] = token.into(),
            _ => return Ok(found),
        }
    }
}

/// What was found where: a sentence for each place, without the secret itself.
pub(crate) fn find(secrets: &[String], places: &[Place]) -> Vec<String> {
    let forms: Vec<String> = secrets.iter().flat_map(|secret| forms(secret)).collect();
    let leaks = |place: &&Place| forms.iter().any(|form| place.text.contains(form));
    places.iter().filter(leaks).map(|place| format!("P4: a secret is in {}", place.name)).collect()
}

/// A secret as it is, as a URL writes it, and as some JSON writers do.
fn forms(secret: &str) -> [String; 3] {
    let url = secret.replace('%', "%25").replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    [secret.to_owned(), url, secret.replace('/', "\\/")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form_and_not_repeated() {
        let secrets = ["abc/def+ghi".to_owned()];
        let place = |text: &str| Place::new("the place", text);
        for text in ["x abc/def+ghi y", "q=abc%2Fdef%2Bghi&", r#""abc\/def+ghi""#] {
            assert_eq!(find(&secrets, &[place(text)]), ["P4: a secret is in the place"]);
        }
        assert!(find(&secrets, &[place("abc def ghi")]).is_empty());
    }
}
