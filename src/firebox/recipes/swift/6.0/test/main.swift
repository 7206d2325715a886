import Foundation

print(String(format: "%@", "ok").uppercased())
