"""PAMFN: multimodal action quality assessment."""
