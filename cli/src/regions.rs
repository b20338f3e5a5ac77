//! The regions that an account uses, or could.

use aws_sdk_account::types::RegionOptStatus;
use keywheel::StepError;

use crate::place::Place;

/// The regions that are enabled in the account, to the last page.
pub(crate) async fn enabled(place: &Place) -> Result<Vec<String>, StepError> {
    let mut pages = aws_sdk_account::Client::new(place.config())
        .list_regions()
        .region_opt_status_contains(RegionOptStatus::Enabled)
        .region_opt_status_contains(RegionOptStatus::EnabledByDefault)
        .max_results(50)
        .into_paginator()
        .send();
    let mut regions = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("account:ListRegions", &error))?;
        regions.extend(page.regions().iter().filter_map(|region| region.region_name().map(str::to_owned)));
    }
    if regions.is_empty() {
        return Err(StepError::Conflict("account:ListRegions named no region".into()));
    }
    regions.sort_unstable();
    Ok(regions)
}

/// The regions that are known without asking: the installation's, and the one of IAM's records.
pub(crate) fn known(place: &Place) -> Vec<String> {
    let iam = facts::trail::iam_region(&place.partition).filter(|region| *region != place.region);
    std::iter::once(place.region.clone()).chain(iam.map(str::to_owned)).collect()
}
