//! Tests on the local cloud.
