"""ControlNet: a picture, such as a drawing of edges, guides what the network paints where.

Names, ranges and rules are those of the extension sd-webui-controlnet, whose requests and infotext programs know.
"""
