/// A page of HTML: elements that are closed, text that is escaped, nothing loaded from elsewhere.
#ifndef VLR_TOOLS_HTML_H_
#define VLR_TOOLS_HTML_H_

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace vlr::tools {

/// What may stand between tags as it is; text() and element() make it.
struct Markup {
  std::string html;

  bool empty() const { return html.empty(); }
  Markup& operator+=(const Markup& more) {
    html += more.html;
    return *this;
  }
  friend Markup operator+(Markup a, const Markup& b) { return a += b; }
};

Markup text(std::string_view plain);

using Attributes = std::initializer_list<std::pair<std::string_view, std::string>>;
/// Values of attributes are escaped; those that are empty are left out.
Markup element(std::string_view name, Attributes attributes, const Markup& content = {});
Markup element(std::string_view name, const Markup& content);
/// With text as its content.
Markup element(std::string_view name, Attributes attributes, std::string_view content);
Markup element(std::string_view name, std::string_view content);

/// The document, with the style sheet that the report's classes are in.
std::string page(std::string_view title, const Markup& body);

}  // namespace vlr::tools

#endif  // VLR_TOOLS_HTML_H_
