"""What a hostile page tries, to make a browser reach an address that it may not reach (guides/web.md §5.3).

Each probe is the body of a page; `TARGET` stands for the forbidden server, the path after it names the probe. `ME` is
the page's own server, whose `/to/NAME` redirects to the target. The benchmark and the tests run the same ones.
"""

__all__ = ["DIRECT", "EMBEDDED"]

EMBEDDED: dict[str, str] = {
    "script": '<script src="TARGET/script"></script>',
    "iframe": '<iframe src="TARGET/iframe"></iframe>',
    "css": '<link rel="stylesheet" href="TARGET/css">',
    "css import": '<style>@import "TARGET/css-import";</style>',
    "fetch": '<script>fetch("TARGET/fetch", {mode: "no-cors"})</script>',
    "xhr": '<script>let x = new XMLHttpRequest(); x.open("GET", "TARGET/xhr"); x.send()</script>',
    "web socket": '<script>new WebSocket("TARGET/web-socket".replace("http", "ws"))</script>',
    "event source": '<script>new EventSource("TARGET/event-source")</script>',
    "beacon": '<script>navigator.sendBeacon("TARGET/beacon", "x")</script>',
    "module": '<script type="module">import "TARGET/module"</script>',
    "worker": "<script>new Worker(URL.createObjectURL(new Blob(['importScripts(\"TARGET/worker\")'])))</script>",
    "object": '<object data="TARGET/object"></object>',
    "embed": '<embed src="TARGET/embed">',
    "form in a frame": '<iframe name="f"></iframe><form target="f" action="TARGET/form-frame"></form>'
    "<script>document.forms[0].submit()</script>",
    "preconnect": '<link rel="preconnect" href="TARGET">',
    "prefetch": '<link rel="prefetch" href="TARGET/prefetch">',
    "preload": '<link rel="preload" as="fetch" href="TARGET/preload">',
    "image without an ending": '<img src="TARGET/image">',
    "video": '<video src="TARGET/video" autoplay></video>',
    "svg use": '<svg><image href="TARGET/svg"/></svg>',
    "font": "<style>@font-face{font-family:x;src:url(TARGET/font)}</style><p style='font-family:x'>x</p>",
    "popup": '<script>open("TARGET/popup")</script>',
    "redirected fetch": '<script>fetch("ME/to/redirected-fetch", {mode: "no-cors"})</script>',
    "redirected script": '<script src="ME/to/redirected-script"></script>',
    "redirected frame": '<iframe src="ME/to/redirected-frame"></iframe>',
    "srcdoc frame": "<iframe srcdoc=\"<script src='TARGET/srcdoc'></script>\"></iframe>",
    "ping": '<a id="a" ping="TARGET/ping" href="#x">x</a><script>document.getElementById("a").click()</script>',
    "service worker": '<script>navigator.serviceWorker?.register("/sw.js")</script>',
    "WebRTC": '<script>let p = new RTCPeerConnection({iceServers: [{urls: "turn:HOST?transport=tcp", username: "a",'
    ' credential: "b"}]}); p.createDataChannel("x"); p.createOffer().then(o => p.setLocalDescription(o))</script>',
    "file frame": '<iframe src="file:///etc/passwd"></iframe>',
}
"""Tried by parts of a page that itself may be read."""

DIRECT: dict[str, str] = {
    "script navigation": '<script>location = "TARGET/navigation"</script>',
    "meta refresh": '<meta http-equiv="refresh" content="0;url=TARGET/refresh">',
    "form": '<form action="TARGET/form" method="post"></form><script>document.forms[0].submit()</script>',
}
"""Tried by leaving the page. Redirects and names that lead to the target are tried by address, without a page."""
