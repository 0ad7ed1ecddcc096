/// An HTTP server on 127.0.0.1 for one test: one thread, one request after the other, every answer
/// byte for byte what the test says.
#ifndef VLR_TESTS_SUPPORT_HTTP_SERVER_H_
#define VLR_TESTS_SUPPORT_HTTP_SERVER_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace vlr::testing {

class HttpServer {
 public:
  struct Answer {
    std::string bytes;    ///< status line, header and body
    bool hang_up = true;  ///< false: the connection stays open and silent until the server ends
  };
  /// What is answered to a target, "/a.png?b" of "GET /a.png?b HTTP/1.1".
  using Handler = std::function<Answer(const std::string& target)>;

  explicit HttpServer(Handler handler) : handler_(std::move(handler)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* any = reinterpret_cast<sockaddr*>(&address);
    if (listener_ < 0 || ::bind(listener_, any, size) != 0 || ::listen(listener_, 64) != 0 ||
        ::getsockname(listener_, any, &size) != 0) {
      throw std::runtime_error("no server on 127.0.0.1");
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~HttpServer() {
    ::shutdown(listener_, SHUT_RDWR);  // ends accept()
    thread_.join();
    ::close(listener_);
    for (const int connection : open_) ::close(connection);
  }
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const { return port_; }
  std::string url(std::string_view target, std::string_view host = "127.0.0.1") const {
    return "http://" + std::string(host) + ":" + std::to_string(port_) + std::string(target);
  }
  /// The requests so far, whole: their line and their header.
  std::vector<std::string> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

  static Answer ok(std::string_view body) {
    return {"HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
            std::string(body)};
  }
  static Answer redirect(std::string_view location, int status = 302) {
    return {"HTTP/1.1 " + std::to_string(status) + " Elsewhere\r\nLocation: " +
            std::string(location) + "\r\nContent-Length: 9\r\n\r\nelsewhere"};
  }

 private:
  void serve() {
    for (int connection;
         (connection = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
      std::string request;
      char block[4096];
      while (request.find("\r\n\r\n") == std::string::npos) {
        const ssize_t got = ::recv(connection, block, sizeof block, 0);
        if (got <= 0) break;
        request.append(block, static_cast<size_t>(got));
      }
      const size_t begin = request.find(' ') + 1;
      const Answer answer = handler_(request.substr(begin, request.find(' ', begin) - begin));
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(std::move(request));
      }
      for (std::string_view left = answer.bytes; !left.empty();) {
        const ssize_t sent = ::send(connection, left.data(), left.size(), MSG_NOSIGNAL);
        if (sent <= 0) break;  // the client has enough
        left.remove_prefix(static_cast<size_t>(sent));
      }
      if (answer.hang_up) {
        ::close(connection);
      } else {
        open_.push_back(connection);
      }
    }
  }

  const Handler handler_;
  int listener_ = -1;
  int port_ = 0;
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::vector<int> open_;  // of thread_, until it has ended
  std::thread thread_;
};

}  // namespace vlr::testing

#endif  // VLR_TESTS_SUPPORT_HTTP_SERVER_H_
