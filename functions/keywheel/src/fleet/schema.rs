//! The form of the fleet's policy as a JSON Schema (draft 2020-12), for editors.
//!
//! It is written by hand, in words for those who write policies. It knows what can be told of a field without looking
//! at another one: names, kinds, ranges. Tests hold it against the types: what [`super::FleetPolicy::read`] takes, it
//! takes, and what it takes is refused only for what [`super::check`] says of fields together, or of durations.

/// The schema's text.
pub const SCHEMA: &str = include_str!("policy.schema.json");

#[cfg(test)]
mod tests;
