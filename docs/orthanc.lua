-- Series of CR and DX of each stable study are sent to the service, again only when their instances have changed:
-- results that come back make the study stable anew, and would otherwise send it round in a circle.
local PEER = 'osteon' -- as Orthanc's configuration calls the service, under DicomWeb, Servers
local SENT = '1042' -- a number that Orthanc leaves to its users

function OnStableStudy(study, tags, metadata, origin)
  local radiographs, instances = {}, {}
  for _, series in ipairs(ParseJson(RestApiGet('/studies/' .. study .. '/series'))) do
    if series.MainDicomTags.Modality == 'CR' or series.MainDicomTags.Modality == 'DX' then
      table.insert(radiographs, series.ID)
      for _, instance in ipairs(series.Instances) do
        table.insert(instances, instance)
      end
    end
  end
  table.sort(instances)
  local sent = table.concat(instances, ' ')
  if #radiographs == 0 or metadata[SENT] == sent then
    return
  end
  RestApiPut('/studies/' .. study .. '/metadata/' .. SENT, sent)
  -- In the background: this function holds the lock that each of Orthanc's own answers needs.
  local job = {Resources = radiographs, Synchronous = false}
  RestApiPost('/dicom-web/servers/' .. PEER .. '/stow', DumpJson(job, true))
end
