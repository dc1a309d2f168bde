"""`boqsa app`: a page in the browser where a picture is dropped and its slots are looked at, taken away and exchanged.

looking    a picture and a model -> what the page shows, and the files to download; knows nothing of the page
page       the page
serve      a server for it, on this machine alone unless asked otherwise
bundled    the small model that is used when no run is named
"""
