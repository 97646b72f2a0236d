//! What Docker is told of a container that it shall make.

use std::{collections::HashMap, path::Path};

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
    NetworkingConfig,
};
use buildr_init::wire::{CONTROL_DIR, INIT_PATH};
use buildr_manifest::Resources;

use super::{Input, Network, Spec};
use crate::{
    environment::{HOSTNAME, WORKSPACE},
    labels,
};

/// Where Docker's socket is in a container.
const SOCKET_IN_CONTAINER: &str = "/var/run/docker.sock";

/// A thousandth of a core, as Docker counts.
const NANO_CPUS_PER_THOUSANDTH: i64 = 1_000_000;

pub(super) fn body(spec: &Spec<'_>) -> ContainerCreateBody {
    let settings = serde_json::to_string(spec.settings).expect("settings have only strings for keys");
    let service = match spec.network {
        Network::Own { service, .. } => service,
        Network::Default => None,
    };
    let mut all_labels = labels::of(spec.owner, spec.run);
    all_labels.extend(service.map(|service| (labels::SERVICE.to_owned(), service.to_owned())));
    ContainerCreateBody {
        image: Some(spec.image.to_owned()),
        hostname: Some(service.unwrap_or(HOSTNAME).to_owned()),
        // Init drops to the image's user, stage by stage.
        user: Some("0:0".to_owned()),
        entrypoint: Some(vec![INIT_PATH.to_owned()]),
        cmd: Some(vec![settings]),
        working_dir: Some("/".to_owned()),
        attach_stdin: Some(spec.input != Input::Empty),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(spec.input != Input::Empty),
        stdin_once: Some(spec.input == Input::Once),
        tty: Some(false),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        labels: Some(all_labels),
        networking_config: networking(spec.network),
        host_config: Some(HostConfig {
            auto_remove: Some(spec.input != Input::Open),
            // The daemon may be set to put an init of its own first.
            init: Some(false),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            mounts: Some(mounts(spec)),
            pids_limit: Some(i64::from(spec.resources.pids.unwrap_or(spec.pids_limit))),
            ..limits(spec.resources, spec.network)
        }),
        ..ContainerCreateBody::default()
    }
}

fn mounts(spec: &Spec<'_>) -> Vec<Mount> {
    let bind = |source: &Path, target: &str, read_only| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    };
    let mut mounts = vec![bind(&spec.control, CONTROL_DIR, false), bind(spec.init, INIT_PATH, true)];
    mounts.extend(spec.workspace.map(|workspace| bind(workspace, WORKSPACE, false)));
    mounts.extend(spec.socket.map(|socket| bind(socket, SOCKET_IN_CONTAINER, false)));
    mounts
}

/// The bounds of a container, and the network that it is in.
pub(crate) fn limits(resources: &Resources, network: Network<'_>) -> HostConfig {
    let bytes = |size: buildr_manifest::ByteSize| i64::try_from(size.bytes()).unwrap_or(i64::MAX);
    let memory = resources.memory.map(bytes);
    HostConfig {
        nano_cpus: resources.cpus.map(|cpus| i64::from(cpus.thousandths()) * NANO_CPUS_PER_THOUSANDTH),
        memory,
        // Memory and swap together: what is over the limit must not hide in swap.
        memory_swap: memory,
        network_mode: match network {
            Network::Default => None,
            Network::Own { name, .. } => Some(name.to_owned()),
        },
        ..HostConfig::default()
    }
}

/// By which name the others in its network reach a container.
pub(crate) fn networking(network: Network<'_>) -> Option<NetworkingConfig> {
    let Network::Own { name, service } = network else { return None };
    let aliases = service.map(|service| vec![service.to_owned()]);
    let endpoint = EndpointSettings { aliases, ..EndpointSettings::default() };
    Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(name.to_owned(), endpoint)])) })
}
