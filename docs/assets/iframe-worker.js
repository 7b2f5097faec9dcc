// Browsers refuse workers to pages that are opened as files. The search runs in a worker, so there
// this stands in for one: a hidden frame that runs the script, with the two ends of postMessage.
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = [] // messages for a script that is not loaded yet
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.addEventListener("load", () => this.start(frame.contentWindow, url), { once: true })
      document.body.append(frame)
    }

    start(scope, url) {
      scope.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      const script = scope.document.createElement("script")
      script.src = new URL(url, location).href
      script.onload = () => {
        this.postMessage = data => scope.dispatchEvent(new scope.MessageEvent("message", { data }))
        this.waiting.forEach(this.postMessage)
      }
      scope.document.body.append(script)
    }

    postMessage(data) {
      this.waiting.push(data)
    }
  }
}
