//! An incident as one page for people, to be kept with it: it asks for nothing outside, runs nothing, and shows
//! what others wrote as text.

use std::fmt::{Display, Write as _};

use jiff::Timestamp;

use super::Incident;
use super::findings::{Findings, Made, Seen, Session, Span, Top};
use crate::html::escape;

const STYLE: &str = "\
:root { color-scheme: light dark; --text: #1b1f24; --back: #ffffff; --faint: #59636e; --line: #d1d9e0; --alarm: #a40e26 }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --back: #0d1117; --faint: #9198a1; --line: #3d444d; --alarm: #ff7b72 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; unicode-bidi: isolate }
th { font-weight: 600; color: var(--faint); overflow-wrap: normal; white-space: nowrap }
.number { text-align: right; font-variant-numeric: tabular-nums }
.partial { border: 3px solid var(--alarm); padding: 1rem; margin: 1.5rem 0 }
.partial strong { display: block; font-size: 2.5rem; line-height: 1.2; color: var(--alarm) }
.faint { color: var(--faint) }
";

/// The whole page, HTML in UTF-8.
pub fn page(incident: &Incident) -> String {
    let title = format!("Leaked key {} of {}", incident.credential(), incident.user_name());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        title = escape(&title)
    );
    partial(&mut page, incident.findings.as_ref());
    facts(&mut page, incident);
    list(&mut page, "What failed on the way", &incident.failed);
    if let Some(findings) = &incident.findings {
        found(&mut page, findings);
    }
    let told: Vec<String> =
        incident.notices.iter().map(|notice| format!("{} {}", notice.at, notice.text)).collect();
    list(&mut page, "What was told", &told);
    page.push_str("</body>\n</html>\n");
    page
}

/// Says in large letters what the page does not tell.
fn partial(page: &mut String, findings: Option<&Findings>) {
    let what = match findings {
        None => "What the key did was not found out.".to_owned(),
        Some(findings) if !findings.is_partial() => return,
        Some(findings) => {
            let mut what = Vec::new();
            if !findings.missing.is_empty() {
                what.push(format!("Not read: {}.", findings.missing.join(", ")));
            }
            if !findings.cut.is_empty() {
                what.push(format!("Only the latest calls were read in {}.", findings.cut.join(", ")));
            }
            if findings.truncated && findings.cut.is_empty() {
                what.push("There were more different values than are told apart.".to_owned());
            }
            what.join(" ")
        }
    };
    put(
        page,
        format_args!("<p class=\"partial\" role=\"alert\"><strong>PARTIAL</strong>{}</p>\n", escape(&what)),
    );
}

fn put(page: &mut String, text: impl Display) {
    // Writing to a String does not fail.
    let _ = write!(page, "{text}");
}

fn facts(page: &mut String, incident: &Incident) {
    let deny = incident.deny.as_ref().map(|deny| {
        format!("those issued before {}, until {}, by policy {}", deny.cut_off, deny.until, deny.policy)
    });
    let keys: Vec<&str> = incident.keys.iter().map(crate::AccessKeyId::as_str).collect();
    let role = |deny: &super::RoleDeny| {
        let names = deny.sessions.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let refused = deny.refused.as_ref().map_or_else(String::new, |why| format!(" NOT denied: {why}"));
        format!("{}: {names}{refused}", deny.role)
    };
    let roles = incident.roles.iter().map(role).collect::<Vec<_>>().join("; ");
    let account = incident.account.clone().or_else(|| incident.target.account.clone());
    let rows = [
        ("Incident", Some(incident.id.to_string())),
        (
            "Reported",
            Some(format!(
                "{} ({:?}, {:?})",
                incident.started, incident.target.source, incident.target.severity
            )),
        ),
        ("Why", Some(incident.reason.clone())),
        ("Account", account),
        ("User", Some(incident.user_name().to_owned())),
        ("Contained keys", Some(keys.join(", "))),
        ("Inactive since", incident.contained_at.map(|at| at.to_string())),
        ("Denied sessions", deny),
        ("Denied by roles", Some(roles).filter(|roles| !roles.is_empty())),
        ("Replacement", incident.replacement.as_ref().map(|replacement| replacement.help.clone())),
        ("Outcome", incident.outcome.map(|outcome| outcome.name().to_owned())),
        ("Because", incident.why.as_ref().map(|why| format!("{} {}", why.text, why.remedy))),
    ];
    page.push_str("<table>\n");
    for (name, value) in rows {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            put(page, format_args!("<tr><th scope=\"row\">{name}</th><td>{}</td></tr>\n", escape(&value)));
        }
    }
    page.push_str("</table>\n");
}

fn list(page: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    put(page, format_args!("<h2>{title}</h2>\n<ul>\n"));
    for line in lines {
        put(page, format_args!("<li>{}</li>\n", escape(line)));
    }
    page.push_str("</ul>\n");
}

fn found(page: &mut String, findings: &Findings) {
    list(page, "To be looked at first", &findings.notable);
    let span = findings.span.map_or_else(String::new, |(first, last)| format!(" from {first} to {last}"));
    put(
        page,
        format_args!(
            "<h2>What the key did</h2>\n<p>{} calls{span}, {} of them denied, in {} regions that were read at {}.</p>\n\
             <p class=\"faint\">From CloudTrail's event history: calls that manage, of the last 90 days, some minutes late. \
             Calls that read or write data, such as those for objects in S3, are not in it.</p>\n",
            findings.events, findings.denied_calls, findings.read, findings.at
        ),
    );
    sessions(page, "Roles assumed with it: their sessions outlive the key", "Role", &findings.roles);
    sessions(page, "Sessions minted from it", "Call", &findings.sessions);
    let row = |made: &Made| vec![made.call.clone(), made.name.clone(), time(made.at)];
    table(page, "Made or changed", &["Call", "What", "When"], &findings.made, row);
    for (title, name, top) in [
        ("Source addresses", "Address", &findings.addresses),
        ("User agents", "Agent", &findings.agents),
        ("Regions", "Region", &findings.regions),
        ("Services", "Service", &findings.services),
        ("Calls", "Call", &findings.calls),
        ("Denied calls", "Call", &findings.denied),
    ] {
        let row = |seen: &Seen| {
            let (first, last) = ends(seen.span);
            vec![seen.what.clone(), seen.calls.to_string(), first, last]
        };
        table(page, title, &[name, "Calls", "First", "Last"], top, row);
    }
}

fn sessions(page: &mut String, title: &str, who: &str, top: &Top<Session>) {
    let row = |session: &Session| {
        let (first, last) = ends(session.span);
        let calls = session.calls.to_string();
        let name = session.name.clone();
        vec![session.who.clone(), name, session.key.clone(), calls, first, last, time(session.until)]
    };
    table(page, title, &[who, "Session", "Last key", "Calls", "First", "Last", "Ends"], top, row);
}

fn table<T>(page: &mut String, title: &str, heads: &[&str], top: &Top<T>, row: impl Fn(&T) -> Vec<String>) {
    if top.is_empty() {
        return;
    }
    let class = |head: &str| if head == "Calls" { " class=\"number\"" } else { "" };
    put(page, format_args!("<h2>{title}</h2>\n<table>\n<tr>"));
    for head in heads {
        put(page, format_args!("<th scope=\"col\"{}>{head}</th>", class(head)));
    }
    page.push_str("</tr>\n");
    for entry in &top.list {
        page.push_str("<tr>");
        for (head, value) in heads.iter().zip(row(entry)) {
            put(page, format_args!("<td{}>{}</td>", class(head), escape(&value)));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
    if top.more > 0 {
        put(page, format_args!("<p class=\"faint\">and {} more</p>\n", top.more));
    }
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(String::new, |at| at.to_string())
}

fn ends(span: Span) -> (String, String) {
    (time(span.map(|(first, _)| first)), time(span.map(|(_, last)| last)))
}

#[cfg(test)]
mod tests {
    use super::super::findings::{Gaps, Tally};
    use super::*;
    use serde_json::json;

    const HOSTILE: &str = "\u{202e}<script>alert(1)</script>\"'&\u{1b}<img src=//evil.example onerror=x>";

    fn incident() -> Incident {
        serde_json::from_str(include_str!("../../../../events/investigate.json")).unwrap()
    }

    #[test]
    fn what_others_wrote_is_shown_as_text() {
        let mut tally = Tally::default();
        tally.add(&json!({
            "eventSource": HOSTILE, "eventName": HOSTILE, "userAgent": HOSTILE, "sourceIPAddress": HOSTILE,
            "awsRegion": HOSTILE, "eventTime": "2026-03-02T09:00:00Z", "errorCode": "AccessDenied",
        }));
        for call in ["CreateUser", "AssumeRole", "GetFederationToken"] {
            let service = if call == "CreateUser" { "iam.amazonaws.com" } else { "sts.amazonaws.com" };
            tally.add(&json!({
                "eventSource": service, "eventName": call, "eventTime": "2026-03-02T09:00:00Z",
                "requestParameters":
                    {"userName": HOSTILE, "roleArn": HOSTILE, "roleSessionName": HOSTILE, "name": HOSTILE},
                "responseElements": {"credentials": {"accessKeyId": HOSTILE}},
            }));
        }
        let mut doc = incident();
        doc.reason = HOSTILE.to_owned();
        doc.failed = vec![HOSTILE.to_owned()];
        doc.notices[0].text = HOSTILE.to_owned();
        let gaps = Gaps { read: 1, missing: vec![HOSTILE.to_owned()], cut: vec![HOSTILE.to_owned()] };
        doc.findings = Some(tally.findings(doc.started, gaps));
        let page = page(&doc);
        assert!(page.matches("&lt;script&gt;").count() >= 15, "{page}");
        for what in ["<script", "<img", "\u{202e}", "\u{1b}", "href", "src=\"", "url("] {
            assert!(!page.contains(what), "{what:?} in {page}");
        }
        let tags = page.split('<').skip(1).filter_map(|tag| tag.split([' ', '>', '\n']).next());
        let mut tags: Vec<&str> = tags.map(|tag| tag.trim_start_matches('/')).collect();
        tags.sort_unstable();
        tags.dedup();
        let ours = [
            "!doctype", "body", "h1", "h2", "head", "html", "li", "meta", "p", "strong", "style", "table",
            "td", "th", "title", "tr", "ul",
        ];
        assert_eq!(tags, ours);
    }

    #[test]
    fn partial_is_said_at_the_top_and_only_where_it_is() {
        let mut doc = incident();
        assert!(page(&doc).contains("<strong>PARTIAL</strong>What the key did was not found out."));
        doc.findings = Some(Tally::default().findings(doc.started, Gaps { read: 3, ..Gaps::default() }));
        assert!(!page(&doc).contains("PARTIAL"));
        let gaps = Gaps { read: 2, missing: vec!["eu-west-3".to_owned()], cut: Vec::new() };
        doc.findings = Some(Tally::default().findings(doc.started, gaps));
        let page = page(&doc);
        let at = |what: &str| page.find(what).unwrap();
        assert!(at("<strong>PARTIAL</strong>Not read: eu-west-3.") < at("<table>"));
    }
}
