//! The template as it is handed on: where it leads to files of the repository, it leads to objects of a bucket.
//!
//! Line by line, so that what people read in the bucket is what they read here, comments and all. What is not
//! understood ends the task: a template that still leads to a file would only fail in somebody's account.

use std::collections::BTreeMap;

use keywheel::package::{ARCHITECTURE_PARAMETER, Architecture, Artefact, BUCKET_PARAMETER, Kind};

use crate::error::{Error, Result};

/// The template with the artefact of each path in that path's place.
pub(crate) fn packaged(
    text: &str,
    places: &BTreeMap<String, Artefact>,
    architecture: Architecture,
) -> Result<String> {
    let mut lines = Vec::new();
    let mut section = "";
    for line in text.lines() {
        if !line.starts_with([' ', '#']) && line.ends_with(':') {
            section = line;
        } else if line.starts_with("  ") && !line.starts_with("   ") {
            section = line.trim();
        }
        if is_for_building(line) {
            continue;
        }
        if let Some((before, path)) = line.split_once(": ../") {
            let artefact = places.get(path.trim_end()).ok_or_else(|| {
                Error::from(format!("the template leads to {path}, and nothing was made of it"))
            })?;
            lines.extend(led(before, artefact)?);
        } else if line.trim_start().starts_with("Default: ")
            && section.trim_end_matches(':') == ARCHITECTURE_PARAMETER
        {
            lines.push(format!("    Default: {architecture}"));
        } else {
            lines.push(line.to_owned());
            if line == "Parameters:" {
                lines.extend(bucket_parameter());
            }
        }
    }
    let packaged = lines.join("\n") + "\n";
    // Neither half of the work may have missed its place.
    let missed = packaged.contains("../")
        || !packaged.contains(&format!("  {BUCKET_PARAMETER}:\n"))
        || !packaged.contains(&format!("    Default: {architecture}\n"));
    if missed { Err("the template is not as this task knows it".into()) } else { Ok(packaged) }
}

/// Whether a line only tells `sam build` how a function is made.
fn is_for_building(line: &str) -> bool {
    let word = line.trim_start().split(':').next().unwrap_or_default();
    line == "    Metadata:" || ["BuildMethod", "BuildProperties"].contains(&word)
}

/// A property that led to a path, leading to that path's artefact.
fn led(before: &str, artefact: &Artefact) -> Result<Vec<String>> {
    let indent = &before[..before.len() - before.trim_start().len()];
    let key = artefact.key.as_deref().ok_or_else(|| Error::from(format!("{} has no key", artefact.path)))?;
    let mut lines = vec![
        format!("{before}:"),
        format!("{indent}  Bucket: !Ref {BUCKET_PARAMETER}"),
        format!("{indent}  Key: {key}"),
    ];
    if artefact.kind == Kind::Function {
        // A version is published where the program is another one, and not where the bucket is.
        lines.push(format!("{indent}AutoPublishCodeSha256: {}", artefact.sha256));
    }
    Ok(lines)
}

fn bucket_parameter() -> [String; 3] {
    [
        format!("  {BUCKET_PARAMETER}:"),
        "    Type: String".to_owned(),
        "    Description: The bucket of this region that the functions and machines are taken from."
            .to_owned(),
    ]
}

/// The names of a template's parameters.
pub(crate) fn parameters(template: &str) -> Vec<String> {
    let section = template.lines().skip_while(|line| *line != "Parameters:").skip(1);
    let section = section.take_while(|line| line.is_empty() || line.starts_with([' ', '#']));
    let name = |line: &str| {
        let name = line.strip_prefix("  ")?.strip_suffix(':')?;
        name.bytes().all(|b| b.is_ascii_alphanumeric()).then(|| name.to_owned())
    };
    section.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keywheel::package::TEMPLATE;

    use crate::paths;

    const TEXT: &str = "\
Parameters:
  Stage:
    Type: String
    Default: prod
  Architecture:
    Type: String
    Default: arm64
    AllowedValues: [arm64, x86_64]

Conditions:
  Never: !Equals [a, b]
Resources:
  # Looks.
  LookFunction:
    Type: AWS::Serverless::Function
    Metadata:
      BuildMethod: rust-cargolambda
      BuildProperties: {Binary: look}
    Properties:
      CodeUri: ../functions/look
      Timeout: 60
  Machine:
    Properties:
      DefinitionUri: ../statemachine/rotation.asl.json
";

    fn places() -> BTreeMap<String, Artefact> {
        let place = |path: &str, file: &str, kind, digit: &str| {
            (path.to_owned(), Artefact::new(file, kind, &digit.repeat(64), 1))
        };
        let machine = "statemachine/rotation.asl.json";
        BTreeMap::from([
            place("functions/look", "functions/look.zip", Kind::Function, "a"),
            place(machine, machine, Kind::Machine, "b"),
        ])
    }

    #[test]
    fn what_leads_to_files_leads_to_objects() {
        let (zip, definition) = ("a".repeat(64), "b".repeat(64));
        let expected = format!(
            "\
Parameters:
  ArtefactBucket:
    Type: String
    Description: The bucket of this region that the functions and machines are taken from.
  Stage:
    Type: String
    Default: prod
  Architecture:
    Type: String
    Default: x86_64
    AllowedValues: [arm64, x86_64]

Conditions:
  Never: !Equals [a, b]
Resources:
  # Looks.
  LookFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri:
        Bucket: !Ref ArtefactBucket
        Key: keywheel/{zip}.zip
      AutoPublishCodeSha256: {zip}
      Timeout: 60
  Machine:
    Properties:
      DefinitionUri:
        Bucket: !Ref ArtefactBucket
        Key: keywheel/{definition}.asl.json
"
        );
        assert_eq!(packaged(TEXT, &places(), Architecture::X86).unwrap(), expected);
        assert_eq!(parameters(&expected), ["ArtefactBucket", "Stage", "Architecture"]);
    }

    #[test]
    fn a_template_that_leads_to_something_else_is_not_handed_on() {
        let other = TEXT.replace("../functions/look", "../functions/scan");
        let error = packaged(&other, &places(), Architecture::X86).unwrap_err().to_string();
        assert!(error.contains("functions/scan"), "{error}");
        for (from, to) in
            [("    Default: arm64\n", ""), ("Parameters:", "Parameter:"), ("Timeout: 60", "X: [../x]")]
        {
            let other = TEXT.replace(from, to);
            assert!(packaged(&other, &places(), Architecture::X86).is_err(), "{from}");
        }
    }

    /// The repository's own.
    #[test]
    fn the_hubs_template_is_understood() {
        let text = std::fs::read_to_string(paths::root().join("infra").join(TEMPLATE)).unwrap();
        let path = |line: &str| line.split_once(": ../").map(|(_, path)| path.trim_end().to_owned());
        let place = |path: String| {
            let machine = path.ends_with(".asl.json");
            let (file, kind) =
                if machine { (path.clone(), Kind::Machine) } else { (format!("{path}.zip"), Kind::Function) };
            (path, Artefact::new(&file, kind, &"c".repeat(64), 1))
        };
        let places: BTreeMap<String, Artefact> = text.lines().filter_map(path).map(place).collect();
        let functions = crate::lambdas::packages().unwrap().len();
        assert_eq!(places.values().filter(|one| one.kind == Kind::Function).count(), functions);
        let packaged = packaged(&text, &places, Architecture::X86).unwrap();
        assert_eq!(packaged.matches("AutoPublishCodeSha256: ").count(), functions);
        assert!(!packaged.contains("BuildMethod"));
        let named = parameters(&packaged);
        for name in ["ArtefactBucket", "Stage", "Architecture", "LogRetentionDays", "FleetSchedule"] {
            assert!(named.iter().any(|one| one == name), "{name}: {named:?}");
        }
        // Each function leaves three lines that `sam build` reads, and gets three more; a machine gets two.
        let machines = places.len() - functions;
        assert_eq!(packaged.lines().count(), text.lines().count() + 2 * machines + 3);
    }
}
