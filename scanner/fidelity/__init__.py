"""Is an engine exact enough to be kept?"""
