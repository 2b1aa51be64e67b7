-- Makes the queues that are missing. ARGV from 3 on: name, id, max_receives, dead-letter queue, tags, of each. Where
-- none is missing nothing is written: a server that is full then lets a run begin, which gives out what it holds.
for i = 3, #ARGV, 5 do
  local made, id, most, dead, tags = unpack(ARGV, i, i + 4)
  if call('HEXISTS', prefix .. ':queues', made) == 0 then
    call('HSET', prefix .. ':queues', made, id .. ' ' .. id .. ' ' .. most .. ' ' .. dead)
    if tags ~= '' then
      call('HSET', prefix .. ':tags', made, tags)
    end
  end
end
return 1
