//! The fuzz targets' readers; CONTRIBUTING.md says how to run a campaign.

pub mod readers;
