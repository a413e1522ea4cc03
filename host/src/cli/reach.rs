//! The way from a command to the app: its configuration, then its running host, then, where none runs, its journal.
//! Invariant: only one process has the journal at a time; a host that runs is always asked.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sagahost_journal::{Journal, JournalError};
use sagahost_journal_sqlite::{OpenOptions, SqliteJournal};
use sagahost_operator::{
    client::Client,
    desk::Desk,
    protocol::{Reply, Request},
    socket,
};
use sagahost_private as private;
use sagahost_saga::notation::with_causes;
use sagahost_transport::Transport;
use serde::de::DeserializeOwned;

use super::{
    Site, dev,
    exit::{Exit, Failure},
};
use crate::{
    config::{Config, ConfigFile, FILE_NAME},
    data_directory::{self, PLUGIN_DIRECTORY},
    host::open_transport,
};

impl Site {
    pub fn config(&self) -> Result<Config, Failure> {
        match self.place()? {
            ConfigPlace::File(file) => Ok(Config::load(&file)?),
            ConfigPlace::Data(data) => Ok(Config::embedded(remembered_plugins(&data), data)),
        }
    }

    /// The file with everything that is wrong about it; none: the app runs without one.
    pub fn file(&self) -> Result<Option<ConfigFile>, Failure> {
        match self.place()? {
            ConfigPlace::File(file) => Ok(Some(ConfigFile::read(&file)?)),
            ConfigPlace::Data(_) => Ok(None),
        }
    }

    fn place(&self) -> Result<ConfigPlace, Failure> {
        if self.data.is_some() && self.config.is_some() {
            return Err(Failure::usage("name a configuration file or a data directory, not both"));
        }
        if let Some(data) = &self.data {
            return Ok(ConfigPlace::Data(data.clone()));
        }
        let file = self.config.as_deref().unwrap_or(Path::new(FILE_NAME));
        if self.config.is_none() && !file.exists() && Path::new(dev::DATA).is_dir() {
            return Ok(ConfigPlace::Data(dev::DATA.into()));
        }
        if self.config.is_none() && !file.exists() {
            return Err(Failure::usage(format!(
                "there is no {FILE_NAME} here: name it with --config FILE, or a data directory with --data DIR"
            )));
        }
        Ok(ConfigPlace::File(file.to_owned()))
    }
}

/// Where an app's configuration comes from.
enum ConfigPlace {
    File(PathBuf),
    /// The data directory of an app without a file.
    Data(PathBuf),
}

/// As the system has it.
const PATH_BYTES_MAX: usize = 4096;

pub fn remember_plugins(config: &Config) -> Result<(), Failure> {
    if config.file.is_some() {
        return Ok(());
    }
    let plugins = std::path::absolute(&config.plugins_dir);
    plugins
        .and_then(|plugins| private::write(&config.data_dir.join(PLUGIN_DIRECTORY), &[plugins.as_os_str().as_bytes()]))
        .map_err(|error| Failure::failed("note the plugin directory in the data directory", &error))
}

fn remembered_plugins(data: &Path) -> PathBuf {
    match private::read_of_anyone(&data.join(PLUGIN_DIRECTORY), PATH_BYTES_MAX) {
        Ok(bytes) => PathBuf::from(OsStr::from_bytes(&bytes)),
        Err(_) => PathBuf::from("plugins"),
    }
}

/// Longer than the host takes to give up by itself.
fn patience(config: &Config) -> Duration {
    config.admin.request_timeout + Duration::from_secs(5)
}

/// The app's running host, if there is one.
pub fn host(config: &Config) -> Result<Option<Client>, Failure> {
    let path = match socket::find(&config.operator()) {
        Ok(path) => path,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::new(Exit::HostNotReached, format!("failed to find the socket: {error}"))),
    };
    Ok(Client::connect(&path, patience(config))?)
}

/// Asks the running host, else answers from the journal.
pub fn ask<T: DeserializeOwned>(config: &Config, request: Request) -> Result<T, Failure> {
    let value = match host(config)? {
        Some(mut client) => client.ask(&request)?,
        None => {
            let journal = journal(config)?;
            let (settings, transport) = (config.operator(), transport(config)?);
            let desk = Desk { settings, journal: journal.clone(), transport, live: None };
            let reply = desk.reply(request);
            journal
                .close()
                .map_err(|error| Failure::new(Exit::Journal, format!("failed to close the journal: {error}")))?;
            match reply {
                Reply::Ok(value) => value,
                Reply::Refused(refusal) => return Err(refusal.into()),
            }
        }
    };
    serde_json::from_value(value).map_err(|error| {
        let text = format!("the host answered in a way that this version does not understand: {error}");
        Failure::new(Exit::HostNotReached, text)
    })
}

/// Takes the lock. There must have been a host once.
pub fn journal(config: &Config) -> Result<Arc<dyn Journal>, Failure> {
    match journal_if_any(config)? {
        Some(journal) => Ok(journal),
        None => {
            let dir = config.data_dir.display();
            Err(Failure::nothing(format!("there is no journal in {dir}: no host has run with this data directory yet")))
        }
    }
}

pub fn journal_if_any(config: &Config) -> Result<Option<Arc<dyn Journal>>, Failure> {
    if !config.data_dir.join(sagahost_journal_sqlite::FILE).exists() {
        return Ok(None);
    }
    secure(config)?;
    // An app that was started without a configuration has the default name.
    match SqliteJournal::open(&config.data_dir, &config.app, OpenOptions::default()) {
        Ok(journal) => Ok(Some(Arc::new(journal))),
        Err(JournalError::InUse(text)) => Err(Failure::new(
            Exit::HostNotReached,
            format!("{text}\n(it does not answer on its admin socket: it may be starting or stopping)"),
        )),
        Err(error) => Err(Failure::new(Exit::Journal, format!("failed to open the journal: {error}"))),
    }
}

/// Before anything in the data directory is opened.
pub fn secure(config: &Config) -> Result<(), Failure> {
    data_directory::secure(config)
        .map_err(|error| Failure::new(Exit::Journal, format!("failed to use the data directory: {error}")))
}

pub fn transport(config: &Config) -> Result<Arc<dyn Transport>, Failure> {
    if config.kafka.is_none() {
        secure(config)?;
    }
    open_transport(config).map_err(|error| match config.kafka.is_some() {
        // Nobody has been asked yet: librdkafka refuses it.
        true => Failure::usage(with_causes(&error)),
        false => error.into(),
    })
}
