"""The shell of the ops console: navigation, overview, sign-in pages, first run, template tags.

May hold: what every page shares and the pages that belong to no single app. Imports any app's noun modules.
The usual change: an entry of the navigation.
"""
