#include "tools/html.h"

namespace vlr::tools {
namespace {

// Colours are those of Okabe and Ito, which colour-blind readers tell apart; on a dark ground they
// are lighter. s0 to s6 are the series, which have marks of their own shape as well; s7 is the rest.
constexpr std::string_view kStyle = R"css(
:root{color-scheme:light dark;--bg:#fff;--fg:#1a1a1a;--dim:#595959;--line:#d4d4d4;--soft:#f3f4f6;
 --good:#006b4e;--bad:#b3400a;--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#cc79a7;--s4:#e69f00;
 --s5:#56b4e9;--s6:#555;--s7:#bbb}
@media (prefers-color-scheme:dark){:root{--bg:#15181c;--fg:#e6e6e6;--dim:#a8adb3;--line:#3b4148;
 --soft:#20252b;--good:#4fd6aa;--bad:#ff9a5c;--s0:#4da3e8;--s1:#ff8133;--s2:#2ec79b;--s3:#e59cc5;
 --s4:#f0c04a;--s5:#a3daf7;--s6:#b0b0b0;--s7:#666}}
*{box-sizing:border-box}
body{margin:0 auto;padding:12px;max-width:1560px;background:var(--bg);color:var(--fg);
 font:15px/1.45 system-ui,-apple-system,"Segoe UI","Liberation Sans",Arial,sans-serif;
 -webkit-text-size-adjust:100%}
h1{font-size:26px;margin:4px 0 8px}h2{font-size:21px;margin:36px 0 8px;border-bottom:1px solid var(--line)}
h3{font-size:17px;margin:24px 0 6px}h1,h2,h3,p,li,dd{overflow-wrap:anywhere}p{margin:6px 0;max-width:75em}
a{color:inherit}nav a{display:inline-block;margin:2px 10px 2px 0;padding:3px 0}
small,.dim{color:var(--dim);font-size:14px}td small,th small{display:block;line-height:1.25}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,150px),1fr));gap:8px 16px;margin:8px 0}
dt{color:var(--dim);font-size:14px}dd{margin:0}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:16px 20px}
figure{margin:0;min-width:0}figcaption{font-weight:600;overflow-wrap:anywhere}figure p{font-size:14px;margin:2px 0}
svg{display:block;overflow:visible}svg.chart{width:100%;height:auto}
.stack{margin:6px 0}.stack rect{stroke:var(--bg);stroke-width:1}svg.bar{margin:2px 0 0 auto}svg.mark{display:inline-block;vertical-align:-2px}
svg text{font-size:14.5px;fill:var(--fg);paint-order:stroke;stroke:var(--bg);stroke-width:3px;stroke-linejoin:round}
svg .dim{fill:var(--dim)}.grid{stroke:var(--line);stroke-width:1}.roof{stroke:var(--fg);stroke-width:1.6;fill:none}
.band{fill:var(--line);opacity:.6}.axis{stroke:var(--dim);stroke-width:1}.trend{fill:none;stroke:var(--s0);stroke-width:1.6}
.point{stroke:var(--bg);stroke-width:.8;fill-opacity:.88}.ground{fill:var(--line)}
.s0{fill:var(--s0)}.s1{fill:var(--s1)}.s2{fill:var(--s2)}.s3{fill:var(--s3)}.s4{fill:var(--s4)}
.s5{fill:var(--s5)}.s6{fill:var(--s6)}.s7{fill:var(--s7)}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:14px;margin:2px 0 8px}
.scroll{overflow-x:auto;margin:6px 0;max-width:100%}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:4px 6px;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);font-size:14px}
thead th{font-weight:600;vertical-align:bottom;border-bottom:1px solid var(--dim);white-space:nowrap}
.n{text-align:right;white-space:nowrap}.g{border-left:1px solid var(--dim)}
.key{position:sticky;left:0;background:var(--bg);min-width:13em;max-width:19em;overflow-wrap:anywhere;font-weight:400;z-index:1}
.op{white-space:nowrap}.name{max-width:26em;min-width:9em;overflow-wrap:anywhere}
.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}td.bad,li.bad{font-weight:400}
.note{background:var(--soft);border-left:4px solid var(--s4);padding:8px 12px;margin:10px 0}
.verdict{font-size:44px;font-weight:700;line-height:1.1;margin:10px 0;overflow-wrap:anywhere}
details{margin:6px 0}summary{cursor:pointer;padding:4px 0}
@media (max-width:600px){.key{max-width:9.5em;min-width:7em}.verdict{font-size:36px}th,td{padding:4px 6px}}
@media print{@page{size:A4 landscape;margin:10mm}
 :root{--bg:#fff;--fg:#000;--dim:#444;--line:#ccc;--soft:#f3f4f6;--good:#006b4e;--bad:#b3400a;--s0:#0072b2;
 --s1:#d55e00;--s2:#009e73;--s3:#cc79a7;--s4:#e69f00;--s5:#56b4e9;--s6:#555;--s7:#bbb;color-scheme:light}
 *{print-color-adjust:exact;-webkit-print-color-adjust:exact}
 body{font-size:9.5pt;max-width:none;padding:0}nav{display:none}
 .scroll{overflow:visible}.key{position:static;min-width:0;max-width:44mm}.name{min-width:0;max-width:70mm}
 th,td{font-size:7.2pt;padding:1.5pt 3pt}thead th{white-space:normal}td small,th small{font-size:6.6pt}
 .charts{grid-template-columns:repeat(4,1fr);gap:8px 14px}small,.dim,.legend,figure p,dt{font-size:8pt}thead{display:table-header-group}
 figure,tr,dl,.note{break-inside:avoid}h1,h2,h3,summary{break-after:avoid}}
)css";

}  // namespace

Markup text(std::string_view plain) {
  Markup out;
  for (const char c : plain) {
    switch (c) {
      case '&':
        out.html += "&amp;";
        break;
      case '<':
        out.html += "&lt;";
        break;
      case '>':
        out.html += "&gt;";
        break;
      case '"':
        out.html += "&quot;";
        break;
      case '\'':
        out.html += "&#39;";
        break;
      default:
        out.html += c;
    }
  }
  return out;
}

Markup element(std::string_view name, Attributes attributes, const Markup& content) {
  std::string out = "<";
  out += name;
  for (const auto& [key, value] : attributes) {
    if (!value.empty()) out.append(" ").append(key).append("=\"").append(text(value).html) += '"';
  }
  out.append(">").append(content.html).append("</").append(name) += '>';
  return {out};
}

Markup element(std::string_view name, const Markup& content) { return element(name, {}, content); }

Markup element(std::string_view name, Attributes attributes, std::string_view content) {
  return element(name, attributes, text(content));
}

Markup element(std::string_view name, std::string_view content) {
  return element(name, {}, text(content));
}

std::string page(std::string_view title, const Markup& body) {
  return "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
         "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>" +
         element("title", title).html + "<style>" + std::string(kStyle) + "</style></head>\n" +
         element("body", body).html + "</html>\n";
}

}  // namespace vlr::tools
