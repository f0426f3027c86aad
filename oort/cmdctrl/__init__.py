"""CmdCtrl: the control interface of a node, its server and its client."""
