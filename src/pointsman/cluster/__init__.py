"""What only a cluster needs: Envoys and pickers as Deployments, certificates, the leader's writing.

What is to be there is decided by pure functions (`envoys`, `pickers`, `merging`); `applier`,
`key_ring` and `status_writer` bring it about.
"""
