//! An audit as one page for people: it asks for nothing outside, runs nothing, and shows what others wrote as text.

use std::fmt::{Display, Write as _};

use keywheel::fleet::audit::{Concern, Entry, Managed, Would};
use keywheel::html::escape;

use super::Audit;
use super::ages::{Stretch, ages};
use super::show::{self, Counts};
use crate::time;

const STYLE: &str = "\
:root { color-scheme: light dark; --text: #1b1f24; --back: #ffffff; --panel: #f6f8fa; --faint: #59636e; --line: #d1d9e0; --alarm: #a40e26; --care: #7d4e00; --good: #116329; --managed: #2f7d4f; --others: #a8551c }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --back: #0d1117; --panel: #161b22; --faint: #9198a1; --line: #3d444d; --alarm: #ff7b72; --care: #e3b341; --good: #7ee787; --managed: #4cae74; --others: #e08a4a } }
* { box-sizing: border-box }
body { font: 1rem/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 100rem; margin: 2.5rem auto 5rem; padding: 0 1.5rem }
h1 { font-size: 1.75rem; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 .25rem } h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem }
p { max-width: 46rem; margin: 0 0 .75rem }
table { border-collapse: collapse; width: 100% }
caption { text-align: left; color: var(--faint); padding-bottom: .5rem }
th, td { text-align: left; vertical-align: top; padding: .45rem 1rem .45rem 0; border-bottom: 1px solid var(--line); unicode-bidi: isolate }
thead th { font-size: .8rem; font-weight: 600; color: var(--faint); white-space: nowrap; position: sticky; top: 0; background: var(--back) }
tbody th { font-weight: 600; overflow-wrap: anywhere; min-width: 9rem }
tbody th[scope=rowgroup] { font-size: 1rem; padding-top: 1.75rem; border-bottom: 2px solid var(--text) }
code { font: .85em/1.5 ui-monospace, monospace }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.faint { color: var(--faint); font-weight: 400; font-size: .85rem }
.short { white-space: nowrap } .why { min-width: 22rem; max-width: 44rem; overflow-wrap: anywhere } .sign { max-width: 16rem; overflow-wrap: anywhere; font-size: .85rem }
.alarm { color: var(--alarm) } .care { color: var(--care) } .good { color: var(--good) }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1.5rem 0; padding: 0 }
.numbers div { background: var(--panel); border: 1px solid var(--line); padding: .8rem 1rem; display: flex; flex-direction: column-reverse; justify-content: flex-end }
.numbers dt { color: var(--faint); font-size: .85rem } .numbers dd { margin: 0; font-size: 1.75rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums }
.ages { max-width: 52rem } .ages th { white-space: nowrap; font-weight: 400; width: 10rem } .ages .bars { width: 60%; vertical-align: middle; white-space: nowrap }
.bar { display: inline-block; height: .9rem; vertical-align: middle } .managed { background: var(--managed) } .others { background: var(--others) }
.swatch { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem }
.partial { border: 3px solid var(--alarm); padding: 1rem 1.25rem; margin: 1.5rem 0; max-width: 60rem } .partial strong { display: block; font-size: 2rem; line-height: 1.2; color: var(--alarm) }
@media (max-width: 64rem) { .scroll { overflow-x: auto } thead th { position: static } }
@media print { body { margin: 0; max-width: none; font-size: 9pt } thead th { position: static } .scroll { overflow: visible } tr { break-inside: avoid } }
";

/// The whole page, HTML in UTF-8.
pub(super) fn page(audit: &Audit) -> String {
    let title = format!("Access keys of account {}", audit.account);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n",
        title = escape(&title)
    );
    put(
        &mut page,
        format_args!(
            "<p class=\"faint\">Read {}. {} By default a key is due at {}.</p>\n",
            time::at(audit.at),
            escape(&show::source(audit)),
            escape(&audit.max_age)
        ),
    );
    partial(&mut page, &audit.book.unread);
    numbers(&mut page, audit);
    histogram(&mut page, &ages(&audit.book.entries));
    keys(&mut page, audit);
    if !audit.book.others.is_empty() {
        page.push_str("<h2>What else was found</h2>\n<ul>\n");
        for line in &audit.book.others {
            put(&mut page, format_args!("<li>{}</li>\n", escape(&show::other(line))));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn put(page: &mut String, text: impl Display) {
    // Writing to a String does not fail.
    let _ = write!(page, "{text}");
}

/// Says in large letters what the page does not tell.
fn partial(page: &mut String, unread: &[String]) {
    if unread.is_empty() {
        return;
    }
    page.push_str(
        "<div class=\"partial\" role=\"alert\"><strong>PARTIAL</strong>Not everything could be read.\n<ul>\n",
    );
    for why in unread {
        put(page, format_args!("<li>{}</li>\n", escape(why)));
    }
    page.push_str("</ul></div>\n");
}

fn numbers(page: &mut String, audit: &Audit) {
    let counts = Counts::of(&audit.book.entries);
    let tiles = [
        ("users", audit.users, ""),
        ("keys", counts.keys, ""),
        ("Active", counts.active, ""),
        ("past their age", counts.over_age, "alarm"),
        ("unused", counts.unused, "care"),
        ("managed by Keywheel", counts.managed, "good"),
        ("would be rotated", counts.rotate, ""),
        ("perhaps of Terraform", counts.terraform, ""),
    ];
    page.push_str("<dl class=\"numbers\">\n");
    for (name, count, class) in tiles {
        let class = if count == 0 { "" } else { class };
        put(page, format_args!("<div><dt>{name}</dt><dd class=\"{class}\">{count}</dd></div>\n"));
    }
    page.push_str("</dl>\n");
}

/// How old the Active keys are. The bars only show what the numbers beside them say.
fn histogram(page: &mut String, stretches: &[Stretch]) {
    let most = stretches.iter().map(Stretch::keys).max().unwrap_or(0).max(1);
    page.push_str(
        "<h2>How old the Active keys are</h2>\n<table class=\"ages\">\n\
         <caption><span class=\"swatch managed\"></span>managed by Keywheel \
         <span class=\"swatch others\"></span>not managed</caption>\n\
         <thead><tr><th scope=\"col\">Age</th><th scope=\"col\" class=\"number\">Managed</th>\
         <th scope=\"col\" class=\"number\">Not managed</th><td></td></tr></thead>\n<tbody>\n",
    );
    for stretch in stretches {
        let Stretch { name, managed, others } = stretch;
        put(
            page,
            format_args!(
                "<tr><th scope=\"row\">{name}</th><td class=\"number\">{managed}</td><td class=\"number\">{others}</td>\
                 <td class=\"bars\" aria-hidden=\"true\">{}{}</td></tr>\n",
                bar("managed", *managed, most),
                bar("others", *others, most)
            ),
        );
    }
    page.push_str("</tbody>\n</table>\n");
}

/// A part of a bar, of which the longest fills its cell. One key is seen, however many there are.
fn bar(class: &str, count: usize, most: usize) -> String {
    if count == 0 {
        return String::new();
    }
    let tenths = (count * 1000 / most).clamp(5, 1000);
    format!("<span class=\"bar {class}\" style=\"width:{}.{}%\"></span>", tenths / 10, tenths % 10)
}

const COLUMNS: [(&str, &str); 8] = [
    ("User", ""),
    ("Key", ""),
    ("Age", "number"),
    ("Last use", ""),
    ("Slots", "number"),
    ("Managed", ""),
    ("Terraform", ""),
    ("What Keywheel would do, and what was found", ""),
];

fn keys(page: &mut String, audit: &Audit) {
    page.push_str("<h2 id=\"keys\">Every key</h2>\n");
    if audit.book.entries.is_empty() {
        page.push_str("<p>No user has an access key.</p>\n");
        return;
    }
    page.push_str(
        "<div class=\"scroll\" role=\"region\" aria-labelledby=\"keys\" tabindex=\"0\">\n<table>\n\
         <caption>Those first that want somebody's eye most, the oldest of each kind first. Terraform leaves no mark on \
         what it makes: a sign is a convention of people, and none of them is proof.</caption>\n<thead><tr>",
    );
    for (name, class) in COLUMNS {
        put(page, format_args!("<th scope=\"col\" class=\"{class}\">{name}</th>"));
    }
    page.push_str("</tr></thead>\n");
    // They come in the order of their concern.
    for same in audit.book.entries.chunk_by(|a, b| a.concern() == b.concern()) {
        put(
            page,
            format_args!(
                "<tbody>\n<tr><th scope=\"rowgroup\" colspan=\"{}\">{} <span class=\"faint\">{}</span></th></tr>\n",
                COLUMNS.len(),
                heading(same[0].concern()),
                same.len()
            ),
        );
        for entry in same {
            row(page, audit, entry);
        }
        page.push_str("</tbody>\n");
    }
    page.push_str("</table>\n</div>\n");
}

const fn heading(concern: Concern) -> &'static str {
    match concern {
        Concern::Abandoned => "Past its age, and no run will touch it",
        Concern::AtHand => "Due, or something stands in a run's way",
        Concern::Odd => "Something was found",
        Concern::Well => "Nothing to be said",
        Concern::Inactive => "Inactive",
    }
}

fn row(page: &mut String, audit: &Audit, entry: &Entry) {
    let path = if entry.path == "/" { String::new() } else { faint(&entry.path) };
    let owner = entry.owner.as_deref().map_or_else(String::new, faint);
    let age = if entry.active && entry.is_over_age() { "number alarm" } else { "number" };
    let managed = match entry.managed {
        Managed::Yes => "good",
        Managed::Half | Managed::Unknown => "care",
        Managed::No => "",
    };
    let signs: Vec<String> = entry.terraform.iter().map(|sign| escape(sign)).collect();
    let signs = if signs.is_empty() { String::new() } else { format!("maybe<br>{}", signs.join("<br>")) };
    put(
        page,
        format_args!(
            "<tr><th scope=\"row\">{user}{path}{owner}</th><td class=\"short\"><code>{key}</code><br><span class=\"faint\">{state}</span></td>\
             <td class=\"{age}\">{days}</td><td class=\"short\">{used}</td><td class=\"number\">{slots} of 2</td>\
             <td class=\"short {managed}\">{word}</td><td class=\"sign\">{signs}</td><td class=\"why\">{why}</td></tr>\n",
            user = escape(&entry.user),
            key = escape(&show::key(entry)),
            state = show::state(entry),
            days = show::age(entry),
            used = escape(&show::last_use(entry.last_use.as_ref(), audit.at)),
            slots = entry.slots,
            word = show::managed(entry.managed),
            why = why(entry),
        ),
    );
}

fn faint(text: &str) -> String {
    format!("<br><span class=\"faint\">{}</span>", escape(text))
}

fn why(entry: &Entry) -> String {
    let class = if entry.would == Would::Rotate { "good" } else { "faint" };
    let word = show::would(entry.would);
    let mut text = format!("<strong class=\"{class}\">{word}</strong> {}", escape(&entry.why));
    for finding in &entry.findings {
        put(&mut text, format_args!("<br><span class=\"care\">{}</span>", escape(&finding.why)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::samples::{audit, entry};
    use keywheel::fleet::audit::Finding;
    use keywheel::key::LastUse;

    const HOSTILE: &str = "\u{202e}<script>alert(1)</script>\"'&\u{1b}<img src=//evil.example onerror=x>";

    #[test]
    fn what_others_wrote_is_shown_as_text_and_nothing_outside_is_asked_for() {
        let mut odd = entry(HOSTILE, Some(400));
        odd.path = HOSTILE.into();
        odd.owner = Some(HOSTILE.into());
        odd.why = HOSTILE.into();
        odd.terraform = vec![HOSTILE.into()];
        odd.findings = vec![Finding { code: "Odd", why: HOSTILE.into() }];
        odd.last_use =
            Some(LastUse { at: odd.created, service: Some(HOSTILE.into()), region: Some(HOSTILE.into()) });
        let mut audit = audit(vec![odd]);
        audit.book.unread = vec![HOSTILE.into()];
        audit.regions = vec![HOSTILE.into()];
        let page = page(&audit);
        // User, path, owner, why, sign, finding, service and region, what was not read, and the region asked.
        assert_eq!(page.matches("&lt;script&gt;").count(), 10, "{page}");
        for what in ["<script", "<img", "\u{202e}", "\u{1b}", "href", "src=\"", "url(", "@import"] {
            assert!(!page.contains(what), "{what:?} in {page}");
        }
        assert!(page.contains("default-src 'none'") && page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn partial_is_said_before_the_numbers_and_only_where_it_is() {
        let mut audit = audit(vec![entry("a", Some(1))]);
        assert!(!page(&audit).contains("PARTIAL"));
        audit.book.unread = vec!["The secrets of eu-north-1 could not be listed.".into()];
        let page = page(&audit);
        let at = |what: &str| page.find(what).unwrap();
        assert!(at("<strong>PARTIAL</strong>") < at("<dl") && page.contains("<li>The secrets of eu-north-1"));
    }

    #[test]
    fn a_page_of_250_users_has_a_row_for_each_key_under_its_concern() {
        let mut entries: Vec<Entry> =
            (0..250).map(|number| entry(&format!("svc-{number:03}"), Some(number))).collect();
        for entry in entries.iter_mut().skip(200) {
            entry.findings = vec![Finding { code: "OverAge", why: "It is old.".into() }];
        }
        entries.sort_by_key(Entry::concern);
        let page = page(&audit(entries));
        // A head row for the keys and one for the ages, seven ages, two concerns.
        assert_eq!(page.matches("<tr>").count(), 250 + 2 + 7 + 2);
        assert_eq!(page.matches("scope=\"rowgroup\"").count(), 2);
        assert_eq!(page.matches("<td class=\"number alarm\">").count(), 50);
        let at = |what: &str| page.find(what).unwrap();
        assert!(at("Past its age") < at("svc-249") && at("svc-249") < at("Nothing to be said"));
        assert!(page.len() < 250_000, "{}", page.len());
        // What is opened is closed.
        for tag in ["table", "thead", "tbody", "tr", "td", "th", "div", "ul", "dl", "span", "main"] {
            let opened =
                page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn the_longest_bar_fills_its_cell_and_one_key_is_seen() {
        assert_eq!(bar("managed", 0, 10), "");
        assert!(bar("managed", 10, 10).contains("width:100.0%"));
        assert!(bar("others", 3, 8).contains("width:37.5%"));
        assert!(bar("others", 1, 100_000).contains("width:0.5%"));
    }
}
