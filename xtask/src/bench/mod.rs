//! stub
use anyhow::Result;
#[derive(clap::Args)] pub struct BenchArgs {}
#[derive(clap::Args)] pub struct LoadArgs {}
pub fn run(_: &BenchArgs) -> Result<()> { Ok(()) }
pub fn load(_: &LoadArgs) -> Result<()> { Ok(()) }
