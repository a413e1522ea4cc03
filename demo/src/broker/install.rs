//! Kafka itself, from Maven Central. Invariant: the directory of libraries exists only when it is complete.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

/// Of the broker and of its tools.
pub const VERSION: &str = "4.1.0";

pub(super) fn libraries() -> Result<PathBuf> {
    let cache = cache();
    fs::create_dir_all(&cache)?;
    let libraries = cache.join(format!("kafka-{VERSION}"));
    let _lock = super::locked(&cache.join("lock"))?;
    if !libraries.exists() {
        check_tools()?;
        fetch(&cache, &libraries)?;
    }
    Ok(libraries)
}

/// Beside what cargo builds.
fn cache() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join("target"),
        PathBuf::from,
    );
    target.join("kafka")
}

fn check_tools() -> Result<()> {
    let lacking: Vec<_> = [("java", "default-jre-headless"), ("mvn", "maven")]
        .into_iter()
        .filter(|(command, _)| {
            let mut command = Command::new(command);
            command.arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            !command.status().is_ok_and(|status| status.success())
        })
        .map(|(_, package)| package)
        .collect();
    if !lacking.is_empty() {
        bail!("a broker needs Java 17 or later and Maven to fetch it: apt-get install {}", lacking.join(" "));
    }
    Ok(())
}

fn fetch(cache: &Path, libraries: &Path) -> Result<()> {
    let started = Instant::now();
    eprintln!("kafka: fetching Apache Kafka {VERSION} from Maven Central, 54 MB, into {}", libraries.display());
    let part = cache.join("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    let pom = cache.join("pom.xml");
    fs::write(&pom, pom_file())?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "-f"]).arg(&pom).arg("dependency:copy-dependencies").arg("-DincludeScope=runtime");
    maven.arg(format!("-DoutputDirectory={}", part.display())).stdin(Stdio::null());
    super::run(&mut maven).context("failed to fetch Kafka; Maven needs to reach repo.maven.apache.org")?;
    fs::rename(&part, libraries)?;
    eprintln!("kafka: fetched in {} s", started.elapsed().as_secs());
    Ok(())
}

fn pom_file() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion><groupId>local</groupId>\
         <artifactId>broker</artifactId><version>1</version><dependencies>{}{}{}</dependencies></project>",
        dependency("org.apache.kafka", "kafka_2.13", VERSION),
        dependency("org.apache.kafka", "kafka-tools", VERSION),
        // Without it the broker says nothing when it cannot start.
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3"),
    )
}
