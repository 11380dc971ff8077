{{/*
Every right that is asked for stands here and nowhere else; docs/kubernetes.md tells why of each.
*/}}

{{/* Kinds that live in no namespace, and which kinds there are. */}}
{{- define "pointsman.rights.cluster" -}}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gatewayclasses/status]
  verbs: [patch]
{{- end }}

{{/* What lives in namespaces: in all of them, or in those that are watched. */}}
{{- define "pointsman.rights.namespaced" -}}
# What routes and listeners lead to.
- apiGroups: [""]
  resources: [services, pods, secrets, configmaps]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
# What users write.
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways, httproutes, grpcroutes, referencegrants, listenersets, backendtlspolicies]
  verbs: [get, list, watch]
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools]
  verbs: [get, list, watch]
- apiGroups: [inference.networking.x-k8s.io]
  resources: [inferencepools, inferencemodels, inferenceobjectives, inferencemodelrewrites]
  verbs: [get, list, watch]
- apiGroups: [llm-d.ai]
  resources: [inferenceobjectives, inferencemodelrewrites]
  verbs: [get, list, watch]
- apiGroups: [gateway.envoyproxy.io]
  resources:
    - backends
    - envoyextensionpolicies
    - envoypatchpolicies
    - envoyproxies
    - backendtrafficpolicies
    - clienttrafficpolicies
  verbs: [get, list, watch]
# What became of it.
- apiGroups: [gateway.networking.k8s.io]
  resources:
    - gateways/status
    - httproutes/status
    - grpcroutes/status
    - listenersets/status
    - backendtlspolicies/status
  verbs: [patch]
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools/status]
  verbs: [patch]
- apiGroups: [inference.networking.x-k8s.io]
  resources:
    - inferencepools/status
    - inferencemodels/status
    - inferenceobjectives/status
    - inferencemodelrewrites/status
  verbs: [patch]
- apiGroups: [llm-d.ai]
  resources: [inferenceobjectives/status, inferencemodelrewrites/status]
  verbs: [patch]
- apiGroups: [gateway.envoyproxy.io]
  resources:
    - backends/status
    - envoyextensionpolicies/status
    - envoypatchpolicies/status
    - envoyproxies/status
    - backendtrafficpolicies/status
    - clienttrafficpolicies/status
  verbs: [patch]
# What is made for Gateways and pools.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, secrets, configmaps]
  verbs: [create, patch, delete]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [rolebindings]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}

{{/* To give pickers the one role that pickers have. */}}
{{- define "pointsman.rights.bind" -}}
- apiGroups: [rbac.authorization.k8s.io]
  resources: [clusterroles]
  resourceNames: [pointsman-picker]
  verbs: [bind]
{{- end }}

{{/* In the namespace of the installation: who leads, and the authority of certificates. */}}
{{- define "pointsman.rights.own" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [pointsman-authority]
  verbs: [update]
{{- end }}

{{/* What a picker reads: its pool, the pool's pods, and what is said of models. */}}
{{- define "pointsman.rights.picker" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools]
  verbs: [get, list, watch]
- apiGroups: [inference.networking.x-k8s.io]
  resources: [inferencepools, inferencemodels, inferenceobjectives, inferencemodelrewrites]
  verbs: [get, list, watch]
- apiGroups: [llm-d.ai]
  resources: [inferenceobjectives, inferencemodelrewrites]
  verbs: [get, list, watch]
{{- end }}
