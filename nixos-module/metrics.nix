# Prometheus on this host finds every process, on all hosts of the cluster, in the list that was rendered.
{ config, lib, ... }:

let
  cfg = config.services.plexus;
  inherit (cfg.cluster) tls;
in
{
  config = lib.mkIf (cfg.enable && cfg.metrics.scrape) {
    assertions = [
      {
        assertion = cfg.nginx.enable || cfg.cluster.hosts != { };
        message = "services.plexus.metrics.scrape needs services.plexus.nginx.enable: the processes listen on unix sockets.";
      }
    ];

    # A file of its own path: a change is read without restarting Prometheus.
    environment.etc."plexus/prometheus.json".source = "${cfg.rendered}/prometheus.json";
    services.prometheus.scrapeConfigs = [
      (
        {
          job_name = "plexus";
          file_sd_configs = [ { files = [ "/etc/plexus/prometheus.json" ]; } ];
        }
        // lib.optionalAttrs (tls != null) { tls_config.ca_file = "${tls.caFile}"; }
      )
    ];
    # The CA's certificates are on the host, where this is not checked.
    services.prometheus.checkConfig = lib.mkIf (tls != null) (lib.mkDefault "syntax-only");
  };
}
