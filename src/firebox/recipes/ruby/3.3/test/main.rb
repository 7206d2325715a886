require "json"
require "set"

puts JSON.parse('["O", "K"]').join
